//go:build race

package blob

const raceEnabled = true // it drops pooled buffers on purpose
