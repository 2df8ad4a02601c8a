package load

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Usage is what a server process has used so far, as the kernel counts it.
type Usage struct {
	CPU     time.Duration
	RSS     int64 // VmRSS, KiB
	PeakRSS int64 // VmHWM, KiB
	FDs     int   // -1 when we may not look: the folder of a process that is not dumpable belongs to root
}

// tick is the unit of utime and stime in /proc/PID/stat: USER_HZ, 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// Inspect reads the usage of process pid.
func Inspect(pid int) (Usage, error) {
	usage := Usage{FDs: -1}
	proc := filepath.Join("/proc", strconv.Itoa(pid))

	stat, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return usage, err
	}
	// The second field is the name in parentheses and may hold anything; utime and stime are fields 14 and 15 (proc(5)).
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return usage, fmt.Errorf("%s/stat has %d fields", proc, len(fields))
	}
	for _, field := range fields[11:13] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return usage, err
		}
		usage.CPU += time.Duration(ticks) * tick
	}

	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return usage, err
	}
	for line := range strings.Lines(string(status)) {
		switch name, value, _ := strings.Cut(line, ":"); name {
		case "VmRSS":
			usage.RSS = kibibytes(value)
		case "VmHWM":
			usage.PeakRSS = kibibytes(value)
		}
	}

	if entries, err := os.ReadDir(filepath.Join(proc, "fd")); err == nil {
		usage.FDs = len(entries)
	}
	return usage, nil
}

func kibibytes(value string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
	return n
}

// quantile returns the q-quantile in microseconds, by the nearest rank. It sorts its argument.
func quantile(latencies []time.Duration, q float64) float64 {
	if len(latencies) == 0 {
		return 0
	}
	slices.Sort(latencies)
	rank := min(int(q*float64(len(latencies))), len(latencies)-1)
	return float64(latencies[rank]) / float64(time.Microsecond)
}

// Median returns the middle of values, 0 of none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

// Settled inspects pid until it holds no more than fds descriptors, at most two seconds: a server notices only after
// the client's last call that the connection is gone.
func Settled(pid, fds int) (Usage, error) {
	deadline := time.Now().Add(2 * time.Second)
	for {
		usage, err := Inspect(pid)
		if err != nil || usage.FDs <= fds || time.Now().After(deadline) {
			return usage, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}
