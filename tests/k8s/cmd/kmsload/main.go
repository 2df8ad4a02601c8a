// Command kmsload calls one operation of a KMS plugin over one connection, as kube-apiserver would, and prints as JSON
// what the calls took and what they cost the server.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"

	"nodeseal.internal/tests/k8s/internal/kms"
	"nodeseal.internal/tests/k8s/internal/load"
)

type report struct {
	API         string `json:"api"`
	Op          string `json:"op"`
	Concurrency int    `json:"concurrency"`
	load.Result
	Server *server `json:"server,omitempty"`
}

type server struct {
	CPUPerCall float64 `json:"cpu_us_per_call"`
	RSS        int64   `json:"rss_kib"`
	PeakRSS    int64   `json:"peak_rss_kib"`
	FDsBefore  int     `json:"fds_before"`
	FDsAfter   int     `json:"fds_after"`
}

func main() {
	socket := flag.String("socket", "", "path of the plugin's unix `socket`")
	api := flag.String("api", "v2", "`v1` or v2")
	op := flag.String("op", "status", "`status` (Version in v1), encrypt or decrypt")
	concurrency := flag.Int("concurrency", 1, "calls in flight")
	duration := flag.Duration("duration", 0, "how long to go on")
	calls := flag.Int("calls", 0, "how many calls to make, instead of -duration")
	pid := flag.Int("pid", 0, "process of the plugin, to read its usage from /proc")
	bare := flag.Bool("no-authority", false, "leave :authority to grpc-go, which sends the encoded path of the socket")
	flag.Parse()
	if *duration == 0 && *calls == 0 {
		*duration = time.Second
	}

	result, err := run(*socket, *api, *bare, *pid, load.Plan{
		Op: *op, Concurrency: *concurrency, Duration: *duration, Calls: *calls,
	})
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	if result.Errors > 0 {
		os.Exit(2)
	}
}

func run(socket, api string, bare bool, pid int, plan load.Plan) (report, error) {
	result := report{API: api, Op: plan.Op, Concurrency: plan.Concurrency}
	var options []grpc.DialOption
	if !bare {
		options = append(options, grpc.WithAuthority("localhost"))
	}
	var before load.Usage
	var err error
	if pid != 0 {
		if before, err = load.Inspect(pid); err != nil {
			return result, err
		}
	}

	connection, err := kms.Dial(socket, options...)
	if err != nil {
		return result, err
	}
	client, err := kms.New(api, connection)
	if err != nil {
		return result, err
	}
	result.Result, err = load.Run(client, plan)
	connection.Close()
	if err != nil || pid == 0 {
		return result, err
	}

	after, err := load.Settled(pid, before.FDs)
	if err != nil {
		return result, err
	}
	result.Server = &server{
		CPUPerCall: float64((after.CPU - before.CPU).Microseconds()) / float64(max(result.Calls, 1)),
		RSS:        after.RSS, PeakRSS: after.PeakRSS,
		FDsBefore: before.FDs, FDsAfter: after.FDs,
	}
	return result, nil
}
