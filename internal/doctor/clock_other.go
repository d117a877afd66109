//go:build !linux

package doctor

func kernelClock() (synced, known bool) { return false, false }
