// Command bench compares nodeseald with a bare gRPC echo server that answers the same calls with constants. Rounds of
// both are interleaved, so that whatever else the machine does meets both alike. It reports and never judges.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"text/tabwriter"
	"time"
)

// Row compares one operation at one concurrency. Ratios are nodeseald over echo.
type Row struct {
	API         string `json:"api"`
	Op          string `json:"op"`
	Concurrency int    `json:"concurrency"`

	Rate     float64 `json:"rate_per_s"` // median over the rounds, as are the next two
	EchoRate float64 `json:"echo_rate_per_s"`
	P99      float64 `json:"p99_us"`
	CPU      float64 `json:"cpu_us_per_call"` // over all rounds: the kernel counts in steps of 10 ms
	EchoCPU  float64 `json:"echo_cpu_us_per_call"`

	RateRatio     float64 `json:"rate_ratio"`        // median of the rounds' ratios
	P99Difference float64 `json:"p99_difference_us"` // median of the rounds' differences
	CPURatio      float64 `json:"cpu_ratio"`
	Errors        int     `json:"errors"`
}

// Residue is what nodeseald holds after many calls, against what it held before the first.
type Residue struct {
	Calls     int   `json:"calls"`
	Errors    int   `json:"errors"`
	RSS       int64 `json:"rss_kib"`
	PeakRSS   int64 `json:"peak_rss_kib"`
	FDsBefore int   `json:"fds_before"`
	FDsAfter  int   `json:"fds_after"`
}

// Report is everything one run found.
type Report struct {
	Rounds  int     `json:"rounds"`
	Rows    []Row   `json:"rows"`
	Residue Residue `json:"residue"`
}

func main() {
	var subject, echo side
	flag.StringVar(&subject.socket, "nodeseald-socket", "", "`path` of nodeseald's KMS socket")
	flag.IntVar(&subject.pid, "nodeseald-pid", 0, "process id of nodeseald")
	flag.StringVar(&echo.socket, "echo-socket", "", "`path` of the echo server's socket")
	flag.IntVar(&echo.pid, "echo-pid", 0, "process id of the echo server")
	rounds := flag.Int("rounds", 5, "rounds of each server for each row")
	length := flag.Duration("round", time.Second, "length of a round")
	soak := flag.Int("soak", 100_000, "calls before memory and descriptors are read")
	bare := flag.Bool("no-authority", false, "leave :authority to grpc-go, which sends the encoded path of the socket")
	asJSON := flag.Bool("json", false, "print JSON instead of a table")
	flag.Parse()
	subject.bare, echo.bare = *bare, *bare

	report, err := run(&subject, &echo, *rounds, *length, *soak)
	if err == nil {
		if *asJSON {
			encoder := json.NewEncoder(os.Stdout)
			encoder.SetIndent("", "  ")
			err = encoder.Encode(report)
		} else {
			err = print(report)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func print(report Report) error {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "api\tcall\tat once\trate/s\techo/s\tratio\tp99 µs\tagainst echo\tcpu µs\techo\tratio\terrors\t")
	for _, r := range report.Rows {
		fmt.Fprintf(table, "%s\t%s\t%d\t%.0f\t%.0f\t%.3f\t%.0f\t%+.0f\t%.1f\t%.1f\t%.2f\t%d\t\n",
			r.API, r.Op, r.Concurrency, r.Rate, r.EchoRate, r.RateRatio, r.P99, r.P99Difference, r.CPU, r.EchoCPU,
			r.CPURatio, r.Errors)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	s := report.Residue
	_, err := fmt.Printf("\nafter %d more calls (%d errors): resident %.1f MiB, at most %.1f MiB; descriptors %d before, %d after\n",
		s.Calls, s.Errors, float64(s.RSS)/1024, float64(s.PeakRSS)/1024, s.FDsBefore, s.FDsAfter)
	return err
}
