package e2e

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"

	"nodeseal.internal/tests/k8s/internal/cluster"
	"nodeseal.internal/tests/k8s/internal/kms"
	"nodeseal.internal/tests/k8s/internal/process"
	"nodeseal.internal/tests/k8s/internal/product"
	"nodeseal.internal/tests/k8s/internal/provider"
)

// sizes are those of a run of the tests with providers.
type sizes struct {
	alone   life
	apis    []api // with each provider alone
	secrets int   // of two nodes
	seeds   int   // that those are under: kube-apiserver makes one at each start
	keks    int   // that those are under
}

// size is what a run of all tests has time for, or, with NODESEAL_E2E=full, everything.
func size() sizes {
	if os.Getenv("NODESEAL_E2E") == "full" {
		return sizes{full, []api{kmsV2, kmsV1}, 10000, 20, 4}
	}
	return sizes{life{secrets: 300, crashes: 1, pace: 100 * time.Millisecond}, []api{kmsV2}, 1000, 3, 2}
}

// Side by side: kube-apiserver spends most of the time waiting before it asks for the key_id anew.
func TestProviderAloneSurvivesRestartRotationAndCrashes(t *testing.T) {
	for _, kind := range provider.Kinds {
		for _, a := range size().apis {
			t.Run(kind.Name+" "+a.name, func(t *testing.T) {
				t.Parallel()
				survive(t, size().alone, a, kind.Start(t, kind.Name))
			})
		}
	}
}

// node is one control-plane node of several on one etcd.
type node struct {
	name    string
	plugin  *product.Plugin
	server  *cluster.APIServer
	history *history
}

// pair is two nodes with the same providers.
type pair struct {
	sizes
	t     *testing.T // of the whole test, which servers last for
	roots []*provider.Root
	etcd  *cluster.Etcd
	a, b  *node
}

func TestProvidersTogetherRootTwoNodes(t *testing.T) {
	p := &pair{sizes: size(), t: t, etcd: cluster.StartEtcd(t)}
	for _, kind := range provider.Kinds[:3] {
		p.roots = append(p.roots, kind.Start(t, kind.Name))
	}
	p.a, p.b = p.join("a"), p.join("b")
	l := newLedger()
	for _, step := range []struct {
		name string
		run  func(*testing.T, *pair, *ledger)
	}{
		{"Secrets are stored under many seeds and several KEKs", storedUnderMany},
		{"a cold start with sealed copies asks no provider", coldWithCopies},
		{"a cold start without asks once for each KEK at most, and the next one does not", coldWithout},
		{"each node reads what the other writes", readCrosswise},
		{"with two of three providers away everything goes on, and debts are paid when they are back", twoAway},
		{"a rotation of each provider's key moves the key_id of both nodes once", rotatedInTurn},
		{"with all providers away both nodes reboot, read everything and write", allAway},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, p, l) }) {
			return // What follows would only repeat it.
		}
	}
	p.neverFlapped(t)
}

// join starts the plugin of a node.
func (p *pair) join(name string) *node {
	p.t.Helper()
	// In order, so that how often providers are asked depends on nobody's speed.
	plugin := product.StartWith(p.t, provider.Node("ordered", p.roots...))
	return &node{name: name, plugin: plugin, history: watch(p.t, plugin)}
}

func (p *pair) nodes() []*node { return []*node{p.a, p.b} }

// serve starts the API server of a node.
func (p *pair) serve(t *testing.T, n *node) {
	t.Helper()
	n.server = cluster.StartAPIServer(p.t, p.etcd, n.plugin.EncryptionConfiguration())
	t.Logf("kube-apiserver of %s was ready after %v", n.name, n.server.Started)
}

// restart restarts the API server, which makes another seed then.
func (n *node) restart(t *testing.T) {
	t.Helper()
	n.server.Stop()
	n.server.Start()
	t.Logf("kube-apiserver of %s was ready after %v", n.name, n.server.Started)
}

// reboot stops everything of a node and starts it again.
func (n *node) reboot(t *testing.T) {
	t.Helper()
	n.server.Stop()
	n.plugin.Stop()
	begin := time.Now()
	n.plugin.Start()
	t.Logf("the plugin of %s was ready after %v", n.name, time.Since(begin))
	n.server.Start()
	t.Logf("kube-apiserver of %s was ready after %v", n.name, n.server.Started)
}

// calls is how often all providers have wrapped and unwrapped KEKs so far, and what else was asked of them.
type calls struct{ wraps, unwraps, all int }

func (p *pair) calls() (sum calls) {
	for _, root := range p.roots {
		sum.wraps += root.Wraps()
		sum.unwraps += root.Unwraps()
		for _, count := range root.Calls() {
			sum.all += count
		}
	}
	return sum
}

// counted returns the calls that act has caused, after everything else has been settled.
func (p *pair) counted(t *testing.T, act func()) calls {
	t.Helper()
	for _, n := range p.nodes() {
		n.plugin.Settled()
	}
	before := p.calls()
	act()
	after := p.calls()
	made := calls{after.wraps - before.wraps, after.unwraps - before.unwraps, after.all - before.all}
	t.Logf("providers: %d wraps, %d unwraps, and %d logins and probes", made.wraps, made.unwraps, made.all-made.wraps-made.unwraps)
	return made
}

// made returns the seeds in etcd and the KEKs that they are under.
func (p *pair) made(t *testing.T) (seeds map[string]bool, keks map[string]bool) {
	t.Helper()
	seeds, keks = make(map[string]bool), make(map[string]bool)
	for key, value := range p.etcd.Values(cluster.Registry) {
		var object kmstypes.EncryptedObject
		if err := proto.Unmarshal((&world{api: kmsV2}).unwrap(t, key, value), &object); err != nil {
			t.Fatal(err)
		}
		text := object.EncryptedDEKSource
		if len(text) < 22 {
			t.Fatalf("%s: its seed has %d bytes", key, len(text))
		}
		seeds[string(text)] = true
		keks[hex.EncodeToString(text[6:22])] = true // docs/formats.md
	}
	return seeds, keks
}

// keeps waits until a node has a copy of its own of everything that etcd's Secrets are under.
func (p *pair) keeps(t *testing.T, n *node) {
	t.Helper()
	_, keks := p.made(t)
	err := process.Until(30*time.Second, 100*time.Millisecond, func() error {
		has := make(map[string]bool)
		for _, key := range n.plugin.Keys() {
			has[key.ID] = true
		}
		for id := range keks {
			if !has[id] {
				return fmt.Errorf("%s has no copy of KEK %s", n.name, id)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func storedUnderMany(t *testing.T, p *pair, l *ledger) {
	p.serve(t, p.a)
	p.a.server.CreateNamespace()
	for n := range p.seeds {
		if n > 0 {
			if n*p.keks/p.seeds > (n-1)*p.keks/p.seeds {
				p.a.plugin.Renew()
			}
			p.a.restart(t)
		}
		l.writeMany(t, p.a.server, fmt.Sprintf("seed-%d", n), p.secrets*(n+1)/p.seeds-p.secrets*n/p.seeds)
	}
	if seeds, keks := p.made(t); len(seeds) != p.sizes.seeds || len(keks) != p.sizes.keks {
		t.Fatalf("they are under %d seeds and %d KEKs, want %d and %d", len(seeds), len(keks), p.sizes.seeds, p.sizes.keks)
	}
	t.Logf("%d Secrets are under %d seeds and %d KEKs", len(l.names()), p.sizes.seeds, p.sizes.keks)
}

func coldWithCopies(t *testing.T, p *pair, l *ledger) {
	p.coldAsksNobody(t, p.a, l)
}

func (p *pair) coldAsksNobody(t *testing.T, n *node, l *ledger) {
	t.Helper()
	made := p.counted(t, func() {
		n.reboot(t)
		l.readAll(t, n.server)
	})
	if made.wraps != 0 || made.unwraps != 0 {
		t.Errorf("a cold start of %s with sealed copies has cost %d wraps and %d unwraps", n.name, made.wraps, made.unwraps)
	}
}

func coldWithout(t *testing.T, p *pair, l *ledger) {
	made := p.counted(t, func() {
		p.serve(t, p.b)
		l.readAll(t, p.b.server)
	})
	switch {
	case made.unwraps == 0:
		t.Error("no provider was asked, so this shows nothing")
	case made.unwraps > p.sizes.keks || made.wraps != 0:
		t.Errorf("a cold start has cost %d wraps and %d unwraps for %d KEKs", made.wraps, made.unwraps, p.sizes.keks)
	}
	p.keeps(t, p.b)
	p.coldAsksNobody(t, p.b, l)
}

func readCrosswise(t *testing.T, p *pair, l *ledger) {
	if a, b := p.a.plugin.Status().KeyID, p.b.plugin.Status().KeyID; a != b {
		t.Fatalf("the nodes report %s and %s", a, b)
	}
	l.writeMany(t, p.a.server, "by-a", 50)
	l.writeMany(t, p.b.server, "by-b", 50)
	for _, n := range p.nodes() {
		l.readAll(t, n.server)
	}
}

func twoAway(t *testing.T, p *pair, l *ledger) {
	// The two that would be asked first.
	away := p.roots[:2]
	for _, root := range away {
		root.Off()
	}
	f := l.start(p.b.server, "two-away", p.alone.pace)
	defer f.halt()
	f.flows(t)
	// A KEK that only one provider has a copy of, and a seed under it.
	p.a.plugin.Renew()
	if owed := p.a.plugin.Status().WrapsOwed; owed < len(away) {
		t.Errorf("%d wraps are owed while %d providers are away", owed, len(away))
	}
	p.a.restart(t)
	l.writeMany(t, p.a.server, "short", 50)
	for _, n := range p.nodes() {
		l.readAll(t, n.server)
	}
	f.flows(t)
	if owed := p.a.plugin.Status().WrapsOwed; owed < len(away) {
		t.Errorf("%d wraps are owed although %d providers were away all the time", owed, len(away))
	}

	begin := time.Now()
	for _, root := range away {
		root.On()
	}
	for _, n := range p.nodes() {
		n.plugin.Settled()
	}
	t.Logf("debts were paid %v after the providers came back", time.Since(begin))
	if short := p.a.plugin.Status().ShortTexts; short == 0 {
		t.Error("texts that were given out without all wraps are not counted any more")
	}
	f.flows(t)
	if err := f.end(); err != nil {
		t.Errorf("%d calls failed, the first: %v", f.failed.Load(), err)
	}
	t.Logf("meanwhile %d Secrets were read and %d written", f.reads.Load(), f.writes.Load())
}

func rotatedInTurn(t *testing.T, p *pair, l *ledger) {
	var flow []*traffic
	for _, n := range p.nodes() {
		f := l.start(n.server, "rotation-"+n.name, p.alone.pace)
		defer f.halt()
		flow = append(flow, f)
	}
	for _, root := range p.roots {
		before, known := p.a.plugin.Status().KeyID, []int{len(p.a.history.seen()), len(p.b.history.seen())}
		begin := time.Now()
		root.Rotate()
		moved(t, before, p.a.plugin, p.b.plugin)
		t.Logf("both had moved %v after the rotation of %s", time.Since(begin), root.Name)
		for n, node := range p.nodes() {
			p.sees(t, node)
			if steps := len(node.history.seen()) - known[n]; steps != 1 {
				t.Errorf("the rotation of %s moved the key_id of %s %d times: %v", root.Name, node.name, steps, node.history.seen())
			}
		}
		if a, b := p.a.plugin.Status().KeyID, p.b.plugin.Status().KeyID; a != b {
			t.Errorf("after the rotation of %s the nodes report %s and %s", root.Name, a, b)
		}
	}
	for _, n := range p.nodes() {
		active := n.plugin.Active()
		probes := 0
		err := process.Until(25*time.Second, 250*time.Millisecond, func() error {
			if err := n.server.Ready(); err != nil {
				return err
			}
			name := fmt.Sprintf("probe-%s-%d", n.name, probes)
			probes++
			if err := l.write(n.server, name); err != nil {
				return err
			}
			w := &world{api: kmsV2, etcd: p.etcd}
			return w.api.sealed(w.payload(t, name), active)
		})
		if err != nil {
			t.Errorf("new writes of %s are not under its new key: %v", n.name, err)
		}
	}
	for _, f := range flow {
		f.flows(t)
		if err := f.end(); err != nil {
			t.Errorf("%d calls failed, the first: %v", f.failed.Load(), err)
		}
		t.Logf("meanwhile %d Secrets were read and %d written", f.reads.Load(), f.writes.Load())
	}
	for _, n := range p.nodes() {
		l.readAll(t, n.server)
	}
}

func allAway(t *testing.T, p *pair, l *ledger) {
	for _, n := range p.nodes() {
		p.keeps(t, n)
	}
	before := p.a.plugin.Status().KeyID
	for _, root := range p.roots {
		root.Off()
	}
	made := p.counted(t, func() {
		for _, n := range p.nodes() {
			n.reboot(t)
		}
		for _, n := range p.nodes() {
			l.readAll(t, n.server)
			l.writeMany(t, n.server, "away-"+n.name, 50)
		}
		for _, n := range p.nodes() {
			l.readAll(t, n.server)
		}
	})
	if made.all != 0 {
		t.Errorf("%d calls have reached providers that are away", made.all)
	}
	for _, n := range p.nodes() {
		if now := n.plugin.Status().KeyID; now != before {
			t.Errorf("key_id of %s is %s and was %s before", n.name, now, before)
		}
	}
	for _, root := range p.roots {
		root.On()
	}
	for _, n := range p.nodes() {
		if now := n.plugin.Settled().KeyID; now != before {
			t.Errorf("with the providers back key_id of %s is %s and was %s before", n.name, now, before)
		}
	}
}

// neverFlapped checks that the nodes reported the same key_ids in the same order, and none twice.
func (p *pair) neverFlapped(t *testing.T) {
	a, b := p.a.history.seen(), p.b.history.seen()
	t.Logf("key_ids reported: %v", a)
	if !slices.Equal(a, b) {
		t.Errorf("the nodes reported different key_ids: %v and %v", a, b)
	}
	if len(a) != 1+len(p.roots) {
		t.Errorf("%d key_ids were reported, want one and another for each of %d rotations", len(a), len(p.roots))
	}
	for n, keyID := range a {
		if slices.Contains(a[:n], keyID) {
			t.Errorf("key_id %s came back", keyID)
		}
	}
}

// history is the key_ids that a node has reported in Status, each change of them.
type history struct {
	lock   sync.Mutex
	keyIDs []string
}

// watch asks for Status as kube-apiserver does, but all the time, until the test ends.
func watch(t *testing.T, plugin *product.Plugin) *history {
	t.Helper()
	h := new(history)
	connection, err := kms.Dial(plugin.Socket)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kms.New("v2", connection)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			within, cancel := context.WithTimeout(ctx, 3*time.Second)
			if keyID, err := client.Status(within); err == nil {
				h.add(keyID)
			}
			cancel()
			time.Sleep(20 * time.Millisecond)
		}
	}()
	t.Cleanup(func() {
		stop()
		<-done
		connection.Close()
	})
	return h
}

func (h *history) add(keyID string) {
	h.lock.Lock()
	defer h.lock.Unlock()
	if len(h.keyIDs) == 0 || h.keyIDs[len(h.keyIDs)-1] != keyID {
		h.keyIDs = append(h.keyIDs, keyID)
	}
}

func (h *history) seen() []string {
	h.lock.Lock()
	defer h.lock.Unlock()
	return slices.Clone(h.keyIDs)
}

// sees waits until the history of a node has what the node reports now.
func (p *pair) sees(t *testing.T, n *node) {
	t.Helper()
	err := process.Until(30*time.Second, 20*time.Millisecond, func() error {
		now, seen := n.plugin.Status().KeyID, n.history.seen()
		if len(seen) == 0 || seen[len(seen)-1] != now {
			return fmt.Errorf("%s reports %s, last seen of %v", n.name, now, seen)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
