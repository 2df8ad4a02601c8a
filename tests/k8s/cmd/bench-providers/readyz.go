package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	"k8s.io/kms/pkg/service"

	"nodeseal.internal/tests/k8s/internal/cluster"
	"nodeseal.internal/tests/k8s/internal/kms"
	"nodeseal.internal/tests/k8s/internal/load"
)

// Ready is the start of a real kube-apiserver whose Secrets are each under a seed of its own, until readyz is ok.
type Ready struct {
	Seeds    int     `json:"seeds"`
	Remote   int     `json:"remote_calls"`
	Nodeseal float64 `json:"seconds_with_nodeseal"`
	Plugin   float64 `json:"seconds_with_a_plugin_that_answers_at_once"`
	Identity float64 `json:"seconds_without_encryption"`
	Ratio    float64 `json:"ratio"`
}

// providerName stands in etcd in front of each object.
const providerName = "nodeseal"

// readies measures what wakes measures by the one who waits for it. Objects are put into etcd as another API server would have
// written them, by its own code.
func (b *bench) readies(bare *vault) error {
	if b.servers == "" {
		return nil
	}
	b.token = bare.token
	like, err := b.likeOthers("other-2", bare)
	if err != nil {
		return err
	}
	plugin, pluginSocket, err := b.startPlugin("plugin-2")
	if err != nil {
		return err
	}
	for _, seeds := range []int{20, 200, 1000} {
		p, err := startProxy(bare.url, far)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("ready-%d", seeds)
		woken, err := b.startNode(name, bare.token, "", provider{name: "vault", url: p.url, mount: "first"})
		if err != nil {
			return err
		}
		row, err := b.ready(seeds, p, []plugged{
			{"nodeseal", filepath.Join(b.dir, name, "kms.sock"), func(seed []byte) (kms.Text, error) { return like.another(bare, seed) }},
			{"plugin", pluginSocket, func(seed []byte) (kms.Text, error) { return plugin.Encrypt(context.Background(), seed) }},
			{"identity", "", nil},
		})
		if err != nil {
			return err
		}
		if _, err := woken.Status(context.Background()); err != nil {
			return err
		}
		b.report.Readies = append(b.report.Readies, row)
	}
	return nil
}

// plugged is kube-apiserver with one plugin, or none.
type plugged struct {
	name, socket string
	encrypt      func(seed []byte) (kms.Text, error)
}

func (b *bench) ready(seeds int, p *proxy, tracks []plugged) (row Ready, err error) {
	row.Seeds = seeds
	seconds := make(map[string][]float64)
	for round := range min(b.rounds, wakeRounds) {
		for _, track := range tracks {
			before := p.settled()
			took, err := startOnce(fmt.Sprintf("/round-%d", round), seeds, track)
			if err != nil {
				return row, fmt.Errorf("%s with %d seeds: %w", track.name, seeds, err)
			}
			seconds[track.name] = append(seconds[track.name], took)
			if track.name != "nodeseal" {
				continue
			}
			after := p.counted()
			proofs := after["encrypt"] - before["encrypt"]
			if row.Remote = after["decrypt"] - before["decrypt"] - proofs; row.Remote != seeds {
				return row, fmt.Errorf("a kube-apiserver that starts with %d seeds made Nodeseal ask %d times", seeds, row.Remote)
			}
		}
	}
	row.Nodeseal, row.Plugin, row.Identity = load.Median(seconds["nodeseal"]), load.Median(seconds["plugin"]), load.Median(seconds["identity"])
	row.Ratio = row.Nodeseal / row.Plugin
	return row, nil
}

// startOnce fills an etcd, starts kube-apiserver on it, and returns the seconds until readyz; then every Secret must be readable.
func startOnce(prefix string, seeds int, track plugged) (took float64, err error) {
	t := &once{}
	defer func() { err = t.end(recover(), err) }()
	etcd := cluster.StartEtcd(t)
	for at := range seeds {
		key := fmt.Sprintf("%s/secrets/%s/secret-%d", prefix, cluster.Namespace, at)
		stored, err := object(key, at, track)
		if err != nil {
			return 0, err
		}
		etcd.Put(key, string(stored))
	}
	server := cluster.StartAPIServer(t, etcd, configuration(track), "--etcd-prefix="+prefix)
	took = server.Started.Seconds()
	count, err := server.CountSecrets()
	if err == nil && count != seeds {
		err = fmt.Errorf("%d of %d Secrets are readable", count, seeds)
	}
	return took, err
}

// object is a Secret as an API server with this plugin stores it: under a seed that no other Secret has.
func object(key string, at int, track plugged) ([]byte, error) {
	plain, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
		"metadata": map[string]any{
			"name": fmt.Sprintf("secret-%d", at), "namespace": cluster.Namespace, "uid": fmt.Sprintf("00000000-0000-4000-8000-%012d", at),
			"creationTimestamp": "2026-01-01T00:00:00Z",
		},
		"data": map[string]string{"value": base64.StdEncoding.EncodeToString([]byte("content"))},
	})
	if err != nil || track.encrypt == nil {
		return plain, err
	}
	ctx := context.Background()
	transformer, made, _, err := kmsv2.GenerateTransformer(ctx, "bench", sealing(track.encrypt), true)
	if err != nil {
		return nil, err
	}
	if made.EncryptedData, err = transformer.TransformToStorage(ctx, plain, value.DefaultContext(key)); err != nil {
		return nil, err
	}
	message, err := proto.Marshal(made)
	return append([]byte("k8s:enc:kms:v2:"+providerName+":"), message...), err
}

func configuration(track plugged) []byte {
	provider := "identity: {}"
	if track.socket != "" {
		provider = fmt.Sprintf("kms: {apiVersion: v2, name: %s, endpoint: 'unix://%s', timeout: 3s}", providerName, track.socket)
	}
	return fmt.Appendf(nil, "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n"+
		"  - resources: [secrets]\n    providers:\n      - %s\n", provider)
}

// sealing is the one call that a new seed needs.
type sealing func(seed []byte) (kms.Text, error)

func (e sealing) Encrypt(_ context.Context, _ string, data []byte) (*service.EncryptResponse, error) {
	text, err := e(data)
	return &service.EncryptResponse{Ciphertext: text.Cipher, KeyID: text.KeyID, Annotations: text.Annotations}, err
}

func (sealing) Decrypt(context.Context, string, *service.DecryptRequest) ([]byte, error) {
	return nil, fmt.Errorf("nobody decrypts here")
}

func (sealing) Status(context.Context) (*service.StatusResponse, error) {
	return nil, fmt.Errorf("nobody asks here")
}

// once lets the servers of the tests run outside of a test: what would fail a test ends the attempt.
type once struct {
	testing.TB
	cleanups []func()
	failed   error
}

type failure struct{ error }

func (*once) Helper()                  {}
func (*once) Logf(string, ...any)      {}
func (o *once) Failed() bool           { return o.failed != nil }
func (o *once) Cleanup(cleanup func()) { o.cleanups = append(o.cleanups, cleanup) }
func (o *once) Fatal(what ...any)      { o.Fatalf("%s", fmt.Sprint(what...)) }
func (o *once) Fatalf(format string, what ...any) {
	o.failed = fmt.Errorf(format, what...)
	panic(failure{o.failed})
}
func (o *once) Errorf(format string, what ...any) { o.failed = fmt.Errorf(format, what...) }

// end stops what was started, the last first, and says what went wrong. A panic that is no failure of a server goes on.
func (o *once) end(panicked any, err error) error {
	for i := len(o.cleanups) - 1; i >= 0; i-- {
		func() {
			// The others are stopped all the same.
			defer func() {
				if what := recover(); panicked == nil {
					panicked = what
				}
			}()
			o.cleanups[i]()
		}()
	}
	failed, ok := panicked.(failure)
	switch {
	case ok:
		return failed
	case panicked != nil:
		panic(panicked)
	case err == nil:
		return o.failed
	}
	return err
}
