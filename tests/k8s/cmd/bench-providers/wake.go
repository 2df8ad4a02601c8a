package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"nodeseal.internal/tests/k8s/internal/kms"
	"nodeseal.internal/tests/k8s/internal/load"
)

const (
	// callers is how many Decrypts kube-apiserver has under way while it fills its watch caches, about.
	callers = 64
	// shares is how often each seed is asked for at once: resources are listed beside each other, and share it.
	shares = 4
	// together is how many calls a node makes to one provider at once.
	together = 16
	// wakeRounds bounds the KEKs of one node: 4,096 stay in memory.
	wakeRounds = 3
)

// Wake is a cold start with so many seeds, each under a KEK of another node that this one has never seen.
type Wake struct {
	Seeds   int     `json:"seeds"`
	Calls   int     `json:"calls"`
	Remote  int     `json:"remote_calls"`
	Seconds float64 `json:"seconds_until_all_are_open"`
	Rate    float64 `json:"decrypts_per_s"`
	P99     float64 `json:"p99_us"`
	Bare    float64 `json:"seconds_of_bare_calls"`
	Plugin  float64 `json:"seconds_of_a_plugin_that_answers_at_once"`
	Ratio   float64 `json:"ratio"`
}

// wakes compares a node in mode rooted, whose Vault is far, with a plugin that asks nobody. That each KEK is asked for once is checked:
// whoever asks more often runs into the limits of a cloud just when everything starts.
func (b *bench) wakes(bare *vault) error {
	b.token = bare.token
	like, err := b.likeOthers("other", bare)
	if err != nil {
		return err
	}
	plugin, _, err := b.startPlugin("plugin")
	if err != nil {
		return err
	}
	var own []kms.Text
	for range 1000 {
		text, err := plugin.Encrypt(context.Background(), seed)
		if err != nil {
			return err
		}
		own = append(own, text)
	}
	for _, seeds := range []int{20, 100, 1000} {
		p, err := startProxy(bare.url, far)
		if err != nil {
			return err
		}
		woken, err := b.startNode(fmt.Sprintf("woken-%d", seeds), bare.token, "", provider{name: "vault", url: p.url, mount: "first"})
		if err != nil {
			return err
		}
		if err := b.wake(seeds, woken, p, plugin, own, func() (kms.Text, error) { return like.another(bare, seed) }); err != nil {
			return err
		}
	}
	return nil
}

// likeOthers starts a node and takes from one of its texts what all nodes' have.
func (b *bench) likeOthers(name string, bare *vault) (like, error) {
	other, err := b.startNode(name, bare.token, "", provider{name: "vault", url: bare.url, mount: "first"})
	if err != nil {
		return like{}, err
	}
	made, err := other.texts(1)
	if err != nil {
		return like{}, err
	}
	return readLike(made[0])
}

func (b *bench) wake(seeds int, woken kms.Client, p *proxy, plugin kms.Client, own []kms.Text, another func() (kms.Text, error)) error {
	var row Wake
	var seconds, rates, p99s, bares, plugins, ratios []float64
	bare := newClient(p.url, b.token)
	text, err := bare.encrypt(context.Background(), "first")
	if err != nil {
		return err
	}
	for range min(b.rounds, wakeRounds) {
		texts, err := several(seeds, another)
		if err != nil {
			return err
		}
		before := p.counted()
		result, err := decryptAll(woken, texts)
		if err != nil {
			return err
		}
		after := p.counted()
		// What the node wraps itself meanwhile, to prove a provider that was opened anew, it opens once too.
		proofs := after["encrypt"] - before["encrypt"]
		row = Wake{Seeds: seeds, Calls: result.Calls, Remote: after["decrypt"] - before["decrypt"] - proofs}
		if row.Remote != seeds || result.Errors > 0 {
			return fmt.Errorf("a node that wakes up with %d seeds: %d remote calls, %d errors (%s), all open after %.0f ms, p99 %.0f ms",
				seeds, row.Remote, result.Errors, result.LastFail, result.Seconds*1000, result.P99/1000)
		}
		beside, err := decryptAll(plugin, own[:seeds])
		if err != nil {
			return err
		}
		if beside.Errors > 0 {
			return fmt.Errorf("the plugin: %s", beside.LastFail)
		}
		alone, err := load.Drive(load.Plan{Concurrency: together, Calls: seeds}, bare.decrypts("", "first", slices.Repeat([]string{text}, together)).one)
		if err != nil {
			return err
		}
		bares = append(bares, alone.Seconds)
		seconds, rates, p99s = append(seconds, result.Seconds), append(rates, result.Rate), append(p99s, result.P99)
		plugins, ratios = append(plugins, beside.Seconds), append(ratios, result.Seconds/beside.Seconds)
	}
	row.Seconds, row.Rate, row.P99 = load.Median(seconds), load.Median(rates), load.Median(p99s)
	row.Bare, row.Plugin, row.Ratio = load.Median(bares), load.Median(plugins), load.Median(ratios)
	b.report.Wakes = append(b.report.Wakes, row)
	return nil
}

// decryptAll asks for each text as often as it is shared, those that share one beside each other.
func decryptAll(client kms.Client, texts []kms.Text) (load.Result, error) {
	var next atomic.Int64
	plan := load.Plan{Concurrency: callers, Calls: shares * len(texts)}
	return load.Drive(plan, func(ctx context.Context, _ int) error {
		at := int(next.Add(1)-1) / shares
		opened, err := client.Decrypt(ctx, texts[at])
		if err == nil && string(opened) != string(seed) {
			err = fmt.Errorf("a text opened to something else")
		}
		return err
	})
}

// several makes texts beside each other.
func several(count int, one func() (kms.Text, error)) ([]kms.Text, error) {
	texts, failed := make([]kms.Text, count), make([]error, workers)
	var makers sync.WaitGroup
	for w := range workers {
		makers.Go(func() {
			for at := w; at < count && failed[w] == nil; at += workers {
				texts[at], failed[w] = one()
			}
		})
	}
	makers.Wait()
	for _, err := range failed {
		if err != nil {
			return nil, err
		}
	}
	return texts, nil
}

func (b *bench) startPlugin(name string) (client kms.Client, socket string, err error) {
	socket = filepath.Join(b.dir, name+".sock")
	if err := b.start(name, exec.Command(b.plugin, socket)); err != nil {
		return nil, "", err
	}
	connection, err := kms.Dial(socket, grpc.WithAuthority("localhost"))
	if err != nil {
		return nil, "", err
	}
	if client, err = kms.New("v2", connection); err != nil {
		return nil, "", err
	}
	return client, socket, until("the plugin", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := client.Status(ctx)
		return err
	})
}

// another is a text as another node makes it, under a KEK of its own that nobody has seen.
func (l like) another(v *vault, seed []byte) (kms.Text, error) {
	id, key := make([]byte, kekIDBytes), make([]byte, keyBytes)
	nonce := make([]byte, nonceBytes)
	for _, bytes := range [][]byte{id, key, nonce} {
		if _, err := rand.Read(bytes); err != nil {
			return kms.Text{}, err
		}
	}
	var answer struct {
		Data struct {
			Ciphertext string `json:"ciphertext"`
		} `json:"data"`
	}
	body := fields{
		"plaintext":       base64.StdEncoding.EncodeToString(key),
		"associated_data": base64.StdEncoding.EncodeToString(append(bytes16([]byte(clusterID)), id...)),
	}
	if err := v.ask(context.Background(), "POST", "first/encrypt/"+keyName, body, &answer); err != nil {
		return kms.Text{}, err
	}
	return l.text(seed, id, key, nonce, []byte(answer.Data.Ciphertext))
}
