// Command bench-providers measures what a Vault adds to a node, mode by mode, beside bare calls to the same Vault: rounds of all
// of them are interleaved in one run. It starts what it needs and reports. It judges one thing: a node that wakes up asks once for each KEK.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"text/tabwriter"
	"time"

	"nodeseal.internal/tests/k8s/internal/kms"
	"nodeseal.internal/tests/k8s/internal/load"
)

// seed has the length of what kube-apiserver encrypts.
var seed = bytes.Repeat([]byte{0xa5}, 32)

const (
	// workers is the highest concurrency: as many connections as a node keeps to one provider.
	workers = 8
	// far is a round trip between two sites that are near each other.
	far = 2 * time.Millisecond
	// late is what the slow one of two providers adds to each request.
	late = 500 * time.Millisecond
)

// Memory is what nodeseald held after the same calls.
type Memory struct {
	Node    string `json:"node"`
	RSS     int64  `json:"rss_kib"`
	PeakRSS int64  `json:"peak_rss_kib"`
}

// Report is everything one run found.
type Report struct {
	Rounds      int                `json:"rounds"`
	Rows        []Row              `json:"rows"`
	PerEncrypt  map[string]float64 `json:"requests_per_direct_encrypt"`
	PerDecrypt  map[string]float64 `json:"requests_per_direct_decrypt"`
	MemoryCalls int                `json:"calls_before_memory"`
	Memory      []Memory           `json:"memory"`
	Wakes       []Wake             `json:"wakes"`
	Readies     []Ready            `json:"readies"`
	Scans       []Scan             `json:"scans"`
}

// What is started is told of our end by the kernel when the thread that started it ends: let that be the main thread.
func init() { runtime.LockOSThread() }

func main() {
	var b bench
	flag.StringVar(&b.bin, "bin", "", "`folder` with nodeseal, nodeseald and nodeseal-sealer")
	binary := flag.String("vault", "", "`path` of Vault")
	flag.StringVar(&b.plugin, "plugin", "", "`path` of the plugin that answers at once")
	flag.StringVar(&b.servers, "servers", "", "`folder` with kube-apiserver and etcd; without it their start is not measured")
	flag.StringVar(&b.dir, "dir", "", "empty `folder` for everything that is started")
	flag.IntVar(&b.rounds, "rounds", 5, "rounds of each row")
	flag.DurationVar(&b.length, "round", time.Second, "length of a round")
	flag.IntVar(&b.calls, "calls", 60_000, "calls before memory is read")
	flag.IntVar(&b.objects, "objects", 100_000, "objects in etcd for a scan; 0 leaves it out")
	only := flag.String("only", "", "measure only what has this `name`: near, far, fastest, rooted, wakes, readies, scans")
	asJSON := flag.Bool("json", false, "print JSON instead of a table")
	flag.Parse()

	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		b.close()
		os.Exit(130)
	}()
	report, err := b.run(*binary, *only)
	b.close()
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

type bench struct {
	stage
	plugin  string
	servers string
	token   string // of a node
	rounds  int
	length  time.Duration
	calls   int
	objects int
	report  Report
}

func (b *bench) run(binary, only string) (Report, error) {
	b.report.Rounds = b.rounds
	bare, err := b.startVault(binary, "first", "second")
	if err != nil {
		return b.report, err
	}
	for _, part := range []struct {
		name    string
		measure func(*vault) error
	}{{"near", b.near}, {"far", b.far}, {"fastest", b.fastest}, {"rooted", b.rooted}, {"wakes", b.wakes}, {"readies", b.readies}, {"scans", b.scans}} {
		if only == "" || only == part.name {
			if err := part.measure(bare); err != nil {
				return b.report, err
			}
		}
	}
	return b.report, nil
}

func (b *bench) measure(g *group, warm int) error {
	for _, concurrency := range []int{1, workers} {
		rows, err := g.measure(concurrency, warm, load.Plan{Duration: b.length}, b.rounds)
		if err != nil {
			return err
		}
		b.report.Rows = append(b.report.Rows, rows...)
	}
	return nil
}

// near compares the modes with a Vault on the same machine.
func (b *bench) near(bare *vault) error {
	rooted, err := b.startNode("rooted", bare.token, "", provider{name: "vault", url: bare.url, mount: "first"})
	if err != nil {
		return err
	}
	direct, err := b.startNode("direct", bare.token, modeDirect, provider{name: "vault", url: bare.url, mount: "first"})
	if err != nil {
		return err
	}
	g, err := beside(bare, direct)
	if err != nil {
		return err
	}
	open, err := b.startNode("open", bare.token, modeDirect+sandboxOff, provider{name: "vault", url: bare.url, mount: "first"})
	if err != nil {
		return err
	}
	opened, err := open.texts(workers)
	if err != nil {
		return err
	}
	ours, err := rooted.texts(workers)
	if err != nil {
		return err
	}
	g.title = "Vault on this machine"
	for _, t := range []*track{open.decrypts("direct Decrypt, no sandbox", opened), open.encrypts("direct Encrypt, no sandbox")} {
		for _, other := range g.tracks {
			if other.name+", no sandbox" == t.name {
				other.against = append(other.against, t.name)
			}
		}
		g.tracks = append(g.tracks, t)
	}
	g.tracks = append(g.tracks, direct.asksStatus("direct Status, which asks nobody"),
		rooted.encrypts("rooted Encrypt", "bare encrypt"), rooted.decrypts("rooted Decrypt", ours, "bare decrypt"))
	return b.measure(g, 500)
}

// far is the same with a Vault that is not, and counts the requests.
func (b *bench) far(bare *vault) error {
	p, err := startProxy(bare.url, far)
	if err != nil {
		return err
	}
	direct, err := b.startNode("far", bare.token, modeDirect, provider{name: "vault", url: p.url, mount: "first"})
	if err != nil {
		return err
	}
	g, err := beside(newClient(p.url, bare.token), direct)
	if err != nil {
		return err
	}
	g.title = fmt.Sprintf("Vault %v away", far)
	if err := b.measure(g, 100); err != nil {
		return err
	}

	texts, err := direct.texts(1)
	if err != nil {
		return err
	}
	count := func(op *track) (map[string]float64, error) {
		const calls = 500
		before := p.counted()
		if _, err := load.Drive(load.Plan{Concurrency: 1, Calls: calls}, op.one); err != nil {
			return nil, err
		}
		each := map[string]float64{}
		for verb, after := range p.counted() {
			each[verb] = float64(after-before[verb]) / calls
		}
		return each, nil
	}
	if b.report.PerEncrypt, err = count(direct.encrypts("")); err != nil {
		return err
	}
	b.report.PerDecrypt, err = count(direct.decrypts("", texts))
	return err
}

// beside is mode direct beside bare calls.
func beside(bare *vault, direct *node) (*group, error) {
	texts, err := direct.texts(workers)
	if err != nil {
		return nil, err
	}
	var bares []string
	for range workers {
		text, err := bare.encrypt(context.Background(), "first")
		if err != nil {
			return nil, err
		}
		bares = append(bares, text)
	}
	// A plugin on the way costs no less than a call to it.
	status, decrypts := direct.asksStatus(""), bare.decrypts("", "first", bares)
	after := &track{name: "a Status, then bare decrypt", one: func(ctx context.Context, worker int) error {
		return errors.Join(status.one(ctx, worker), decrypts.one(ctx, worker))
	}}
	return &group{tracks: []*track{
		bare.decrypts("bare decrypt", "first", bares),
		after,
		direct.decrypts("direct Decrypt", texts, "bare decrypt", after.name),
		bare.encrypts("bare encrypt", "first"),
		bare.sequences("bare encrypt, then read key beside decrypt", "first"),
		direct.encrypts("direct Encrypt", "bare encrypt, then read key beside decrypt", "bare encrypt"),
	}}, nil
}

// fastest lets two providers open the same texts, one of which is late.
func (b *bench) fastest(bare *vault) error {
	p, err := startProxy(bare.url, late)
	if err != nil {
		return err
	}
	first := provider{name: "fast", url: bare.url, mount: "first"}
	second := provider{name: "second", url: bare.url, mount: "second"}
	// It opens what it has wrapped and wraps nothing: two late requests in a wrap are longer than an attempt may take.
	slow := provider{name: "slow", url: p.url, mount: "second", more: "required = false\nwrite = false"}
	rules := modeDirect + "[decrypt]\nstrategy = \"fastest\"\n"
	both, err := b.startNode("both", bare.token, rules, first, second)
	if err != nil {
		return err
	}
	texts, err := both.texts(workers)
	if err != nil {
		return err
	}
	g := &group{title: fmt.Sprintf("fastest, one of two providers %v late", late)}
	for _, n := range []struct {
		name, title string
		against     []string
		providers   []provider
	}{
		{"alone", "Decrypt, the fast one alone", nil, []provider{first}},
		{"fast-first", "Decrypt, the late one stands last", []string{"Decrypt, the fast one alone"}, []provider{first, slow}},
		{"slow-first", "Decrypt, the late one stands first", []string{"Decrypt, the fast one alone"}, []provider{slow, first}},
	} {
		started, err := b.startNode(n.name, bare.token, rules, n.providers...)
		if err != nil {
			return err
		}
		g.tracks = append(g.tracks, started.decrypts(n.title, texts, n.against...))
	}
	return b.measure(g, 500)
}

// rooted compares mode rooted with a node that has hardware alone: annotations go along with each text.
func (b *bench) rooted(bare *vault) error {
	alone, err := b.startNode("hardware", "", "")
	if err != nil {
		return err
	}
	rooted, err := b.startNode("rooted-2", bare.token, "", provider{name: "vault", url: bare.url, mount: "first"})
	if err != nil {
		return err
	}
	g := &group{title: "rooted beside hardware only"}
	for _, kind := range []struct {
		n    *node
		name string
	}{{alone, "hardware only"}, {rooted, "rooted"}} {
		texts, err := kind.n.texts(workers)
		if err != nil {
			return err
		}
		for _, t := range []*track{kind.n.encrypts(kind.name + " Encrypt"), kind.n.decrypts(kind.name+" Decrypt", texts)} {
			if kind.n == rooted {
				t.against = []string{"hardware only" + t.name[len(kind.name):]}
			}
			g.tracks = append(g.tracks, t)
		}
	}
	if err := b.measure(g, 1000); err != nil {
		return err
	}
	b.report.MemoryCalls = b.calls
	for _, n := range []*node{alone, rooted} {
		for _, op := range []string{"encrypt", "decrypt"} {
			if _, err := load.Run(kms.Client(n), load.Plan{Op: op, Concurrency: workers, Calls: max(b.calls/2, 1)}); err != nil {
				return err
			}
		}
		usage, err := load.Inspect(n.pid)
		if err != nil {
			return err
		}
		b.report.Memory = append(b.report.Memory, Memory{n.name, usage.RSS, usage.PeakRSS})
	}
	return nil
}

func print(report Report) error {
	title, at := "", 0
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, r := range report.Rows {
		if r.Group != title || r.Concurrency != at {
			title, at = r.Group, r.Concurrency
			table.Flush()
			fmt.Printf("\n%s, %d at once; medians of %d rounds\n", title, at, report.Rounds)
			fmt.Fprintln(table, "\tp50 µs\tp99 µs\trate/s\terrors\tp50 ratio\tp99 ratio\trate ratio\tagainst")
		}
		line := fmt.Sprintf("%s\t%.0f\t%.0f\t%.0f\t%d\t", r.Name, r.P50, r.P99, r.Rate, r.Errors)
		if len(r.Ratios) == 0 {
			fmt.Fprintln(table, line)
		}
		for _, ratio := range r.Ratios {
			fmt.Fprintf(table, "%s%.2f\t%.2f\t%.2f\t%s\n", line, ratio.P50, ratio.P99, ratio.Rate, ratio.Against)
			line = "\t\t\t\t\t"
		}
		if r.LastError != "" {
			fmt.Fprintf(table, "  %s\n", r.LastError)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if report.PerEncrypt != nil {
		fmt.Printf("\nrequests of one direct Encrypt: %s; of one Decrypt: %s\n", verbs(report.PerEncrypt), verbs(report.PerDecrypt))
	}
	for _, m := range report.Memory {
		fmt.Printf("nodeseald of node %s after %d more calls: resident %.1f MiB, at most %.1f MiB\n",
			m.Node, report.MemoryCalls, float64(m.RSS)/1024, float64(m.PeakRSS)/1024)
	}
	if err := printWakes(table, report); err != nil {
		return err
	}
	if err := printReadies(table, report); err != nil {
		return err
	}
	for _, s := range report.Scans {
		fmt.Printf("\nnodeseal etcd scan of %d objects: %.0f/s, a bare range read of the same etcd %.0f/s, ratio %.2f; a snapshot %.0f/s; at most %.1f MiB\n",
			s.Objects, s.Rate, s.Bare, s.Ratio, s.Snapshot, float64(s.PeakRSS)/1024)
	}
	return nil
}

func printWakes(table *tabwriter.Writer, report Report) error {
	if len(report.Wakes) == 0 {
		return nil
	}
	fmt.Printf("\na node that wakes up, Vault %v away, %d callers, each KEK of another node asked for by %d of them; medians of %d rounds\n",
		far, callers, shares, min(report.Rounds, wakeRounds))
	fmt.Fprintln(table, "KEKs\tDecrypts\tremote calls\tall open after\tDecrypts/s\tp99 µs\tone bare call a KEK\ta plugin that answers at once\tratio")
	for _, w := range report.Wakes {
		fmt.Fprintf(table, "%d\t%d\t%d\t%.0f ms\t%.0f\t%.0f\t%.0f ms\t%.0f ms\t%.1f\n",
			w.Seeds, w.Calls, w.Remote, w.Seconds*1000, w.Rate, w.P99, w.Bare*1000, w.Plugin*1000, w.Ratio)
	}
	return table.Flush()
}

func printReadies(table *tabwriter.Writer, report Report) error {
	if len(report.Readies) == 0 {
		return nil
	}
	fmt.Printf("\na kube-apiserver that starts, Vault %v away, each Secret under a seed and a KEK of another node; seconds until readyz, medians of %d rounds\n",
		far, min(report.Rounds, wakeRounds))
	fmt.Fprintln(table, "seeds\tremote calls\tNodeseal\ta plugin that answers at once\twithout encryption\tratio")
	for _, r := range report.Readies {
		fmt.Fprintf(table, "%d\t%d\t%.2f\t%.2f\t%.2f\t%.2f\n", r.Seeds, r.Remote, r.Nodeseal, r.Plugin, r.Identity, r.Ratio)
	}
	return table.Flush()
}

func verbs(each map[string]float64) string {
	return fmt.Sprintf("%.2f encrypt, %.2f keys, %.2f decrypt", each["encrypt"], each["keys"], each["decrypt"])
}
