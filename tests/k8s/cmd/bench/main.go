// Command bench compares nodeseald with a bare gRPC echo server that answers the same calls with constants, and with itself without
// its sandbox. Rounds of all are interleaved, so that whatever else the machine does meets all alike. It reports and never judges.
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

	Sandbox *Cost `json:"sandbox,omitempty"`
}

// Cost is nodeseald over nodeseald without its sandbox: medians of the rounds' ratios, but for the processor.
type Cost struct {
	Rate float64 `json:"rate_ratio"`
	P50  float64 `json:"p50_ratio"`
	P99  float64 `json:"p99_ratio"`
	CPU  float64 `json:"cpu_ratio"` // over all rounds
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
	// Of nodeseald without its sandbox.
	Unconfined *Residue `json:"unconfined_residue,omitempty"`
}

func main() {
	var subject, echo, unconfined side
	flag.StringVar(&subject.socket, "nodeseald-socket", "", "`path` of nodeseald's KMS socket")
	flag.IntVar(&subject.pid, "nodeseald-pid", 0, "process id of nodeseald")
	flag.StringVar(&echo.socket, "echo-socket", "", "`path` of the echo server's socket")
	flag.IntVar(&echo.pid, "echo-pid", 0, "process id of the echo server")
	flag.StringVar(&unconfined.socket, "unconfined-socket", "", "`path` of the KMS socket of one without its sandbox, if any")
	flag.IntVar(&unconfined.pid, "unconfined-pid", 0, "its process id")
	rounds := flag.Int("rounds", 5, "rounds of each server for each row")
	length := flag.Duration("round", time.Second, "length of a round")
	soak := flag.Int("soak", 100_000, "calls before memory and descriptors are read")
	bare := flag.Bool("no-authority", false, "leave :authority to grpc-go, which sends the encoded path of the socket")
	asJSON := flag.Bool("json", false, "print JSON instead of a table")
	flag.Parse()
	servers := []*side{&subject, &echo}
	if unconfined.socket != "" {
		servers = append(servers, &unconfined)
	}
	for _, server := range servers {
		server.bare = *bare
	}

	report, err := run(servers, *rounds, *length, *soak)
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
	printResidue("", report.Residue)
	if report.Unconfined == nil {
		return nil
	}
	printResidue("without the sandbox, ", *report.Unconfined)
	fmt.Printf("\nthe sandbox: nodeseald with it over nodeseald without it, medians of %d rounds\n", report.Rounds)
	fmt.Fprintln(table, "api\tcall\tat once\trate\tp50\tp99\tcpu\t")
	for _, r := range report.Rows {
		c := r.Sandbox
		fmt.Fprintf(table, "%s\t%s\t%d\t%.3f\t%.3f\t%.3f\t%.3f\t\n", r.API, r.Op, r.Concurrency, c.Rate, c.P50, c.P99, c.CPU)
	}
	return table.Flush()
}

func printResidue(which string, s Residue) {
	fmt.Printf("\n%safter %d more calls (%d errors): resident %.1f MiB, at most %.1f MiB; descriptors %d before, %d after\n",
		which, s.Calls, s.Errors, float64(s.RSS)/1024, float64(s.PeakRSS)/1024, s.FDsBefore, s.FDsAfter)
}
