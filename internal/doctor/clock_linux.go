package doctor

import "golang.org/x/sys/unix"

// kernelClock tells whether the kernel's clock is disciplined (adjtimex(2)).
func kernelClock() (synced, known bool) {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return false, false
	}
	return t.Status&unix.STA_UNSYNC == 0, true
}
