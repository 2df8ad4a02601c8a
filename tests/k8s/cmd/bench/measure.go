package main

import (
	"time"

	"google.golang.org/grpc"

	"nodeseal.internal/tests/k8s/internal/kms"
	"nodeseal.internal/tests/k8s/internal/load"
)

// side is one of the servers.
type side struct {
	socket string
	pid    int
	bare   bool
}

func (s *side) dial() (*grpc.ClientConn, error) {
	if s.bare {
		return kms.Dial(s.socket)
	}
	return kms.Dial(s.socket, grpc.WithAuthority("localhost"))
}

// track sums up one side of one row.
type track struct {
	pid            int
	client         kms.Client
	rate, p50, p99 []float64
	calls          int
	errors         int
	cpu            time.Duration
}

func (t *track) round(plan load.Plan) error {
	before, err := load.Inspect(t.pid)
	if err != nil {
		return err
	}
	result, err := load.Run(t.client, plan)
	if err != nil {
		return err
	}
	after, err := load.Inspect(t.pid)
	if err != nil {
		return err
	}
	t.rate = append(t.rate, result.Rate)
	t.p50 = append(t.p50, result.P50)
	t.p99 = append(t.p99, result.P99)
	t.calls += result.Calls
	t.errors += result.Errors
	t.cpu += after.CPU - before.CPU
	return nil
}

func (t *track) cpuPerCall() float64 {
	return float64(t.cpu.Microseconds()) / float64(max(t.calls, 1))
}

// run measures the servers: nodeseald, the echo server, and nodeseald without its sandbox if there are three.
func run(servers []*side, rounds int, length time.Duration, soak int) (Report, error) {
	report := Report{Rounds: rounds}
	residues := map[*side]*Residue{servers[0]: &report.Residue}
	if len(servers) > 2 {
		report.Unconfined = &Residue{}
		residues[servers[2]] = report.Unconfined
	}
	for server, residue := range residues {
		before, err := load.Inspect(server.pid)
		if err != nil {
			return report, err
		}
		residue.FDsBefore = before.FDs
	}

	for _, api := range []string{"v1", "v2"} {
		for _, op := range []string{"status", "encrypt", "decrypt"} {
			for _, concurrency := range []int{1, 64} {
				row, err := compare(servers, api, rounds, load.Plan{Op: op, Concurrency: concurrency, Duration: length})
				if err != nil {
					return report, err
				}
				report.Rows = append(report.Rows, row)
			}
		}
	}
	for server, residue := range residues {
		if err := afterwards(server, soak, residue); err != nil {
			return report, err
		}
	}
	return report, nil
}

// compare runs the plan against all servers in turn, each on a connection of its own that lasts for all rounds.
func compare(servers []*side, api string, rounds int, plan load.Plan) (Row, error) {
	row := Row{API: api, Op: plan.Op, Concurrency: plan.Concurrency}
	var tracks []*track
	for _, s := range servers {
		connection, err := s.dial()
		if err != nil {
			return row, err
		}
		defer connection.Close()
		client, err := kms.New(api, connection)
		if err != nil {
			return row, err
		}
		tracks = append(tracks, &track{pid: s.pid, client: client})
		// Connecting, and whatever either side sets up for its first calls, is not what is compared.
		if _, err := load.Run(client, load.Plan{Op: plan.Op, Concurrency: plan.Concurrency, Calls: 1000}); err != nil {
			return row, err
		}
	}

	for i := range rounds {
		for next := range tracks {
			// Another one begins each time: a drift of the machine's speed would else favour whoever is always last.
			if err := tracks[(i+next)%len(tracks)].round(plan); err != nil {
				return row, err
			}
		}
	}

	ours, theirs := tracks[0], tracks[1]
	var differences []float64
	for i := range rounds {
		differences = append(differences, ours.p99[i]-theirs.p99[i])
	}
	row.Rate, row.EchoRate, row.P99 = load.Median(ours.rate), load.Median(theirs.rate), load.Median(ours.p99)
	row.RateRatio, row.P99Difference = ratio(ours.rate, theirs.rate), load.Median(differences)
	row.CPU, row.EchoCPU = ours.cpuPerCall(), theirs.cpuPerCall()
	if row.EchoCPU > 0 {
		row.CPURatio = row.CPU / row.EchoCPU
	}
	for _, t := range tracks {
		row.Errors += t.errors
	}
	if len(tracks) > 2 {
		open := tracks[2]
		row.Sandbox = &Cost{ratio(ours.rate, open.rate), ratio(ours.p50, open.p50), ratio(ours.p99, open.p99), 0}
		if of := open.cpuPerCall(); of > 0 {
			row.Sandbox.CPU = ours.cpuPerCall() / of
		}
	}
	return row, nil
}

// ratio is the median of the rounds' ratios.
func ratio(ours, theirs []float64) float64 {
	var ratios []float64
	for i := range ours {
		ratios = append(ratios, ours[i]/max(theirs[i], 1))
	}
	return load.Median(ratios)
}

// afterwards makes calls of every kind and reads what the server is left with once the client is gone.
func afterwards(subject *side, calls int, residue *Residue) error {
	connection, err := subject.dial()
	if err != nil {
		return err
	}
	defer connection.Close()
	kinds := []string{"status", "encrypt", "decrypt"}
	for _, api := range []string{"v1", "v2"} {
		client, err := kms.New(api, connection)
		if err != nil {
			return err
		}
		for _, op := range kinds {
			result, err := load.Run(client, load.Plan{Op: op, Concurrency: 64, Calls: max(calls/(2*len(kinds)), 1)})
			if err != nil {
				return err
			}
			residue.Calls += result.Calls
			residue.Errors += result.Errors
		}
	}
	connection.Close()

	after, err := load.Settled(subject.pid, residue.FDsBefore)
	residue.RSS, residue.PeakRSS, residue.FDsAfter = after.RSS, after.PeakRSS, after.FDs
	return err
}
