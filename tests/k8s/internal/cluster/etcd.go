package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	etcd "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/grpclog"

	"nodeseal.internal/tests/k8s/internal/process"
)

func init() {
	// Each server that is restarted on purpose would else fill the test's output with lines of gRPC.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(nowhere{}, nowhere{}, nowhere{}))
}

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

// Etcd is a running etcd and a client of it.
type Etcd struct {
	URL string

	t      testing.TB
	dir    string
	client *etcd.Client
}

// StartEtcd starts an empty etcd and waits until it answers.
func StartEtcd(t testing.TB) *Etcd {
	t.Helper()
	dir := process.Dir(t)
	e := &Etcd{URL: fmt.Sprintf("http://127.0.0.1:%d", process.Port(t)), t: t, dir: filepath.Join(dir, "data")}
	peer := fmt.Sprintf("http://127.0.0.1:%d", process.Port(t))
	// Without fsync: these tests crash the plugin, never the machine.
	server := process.Start(t, dir, "etcd", exec.Command(process.Binary(t, "NODESEAL_SERVERS", "etcd"),
		"--data-dir", e.dir, "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls", e.URL, "--advertise-client-urls", e.URL,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer))

	err := process.Until(30*time.Second, 20*time.Millisecond, func() error {
		select {
		case <-server.Done():
			t.Fatal("etcd ended before it was ready")
		default:
		}
		answer, err := http.Get(e.URL + "/readyz")
		if err != nil {
			return err
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return errors.New(answer.Status)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("etcd does not answer: %v", err)
	}
	if e.client, err = etcd.New(etcd.Config{Endpoints: []string{e.URL}, DialTimeout: 5 * time.Second}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.client.Close() })
	return e
}

// Values returns the raw bytes of every key under prefix.
func (e *Etcd) Values(prefix string) map[string][]byte {
	e.t.Helper()
	values := make(map[string][]byte)
	// In pages: etcd's answers have a limit of their own.
	const page = 500
	for key, end := prefix, etcd.GetPrefixRangeEnd(prefix); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		answer, err := e.client.Get(ctx, key, etcd.WithRange(end), etcd.WithLimit(page))
		cancel()
		if err != nil {
			e.t.Fatal(err)
		}
		for _, kv := range answer.Kvs {
			values[string(kv.Key)] = kv.Value
		}
		if !answer.More {
			return values
		}
		key = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
	}
}

// Get returns the raw bytes of one key, nil if there is none.
func (e *Etcd) Get(key string) []byte {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	answer, err := e.client.Get(ctx, key)
	if err != nil {
		e.t.Fatal(err)
	}
	if len(answer.Kvs) == 0 {
		return nil
	}
	return answer.Kvs[0].Value
}

// Put writes one key as it is.
func (e *Etcd) Put(key, value string) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := e.client.Put(ctx, key, value); err != nil {
		e.t.Fatal(err)
	}
}

// PutMany writes that many keys that begin with prefix, all with one value.
func (e *Etcd) PutMany(prefix string, count int, value string) {
	e.t.Helper()
	// etcd takes 128 operations at once (--max-txn-ops).
	const together = 100
	for at := 0; at < count; at += together {
		var puts []etcd.Op
		for n := at; n < min(at+together, count); n++ {
			puts = append(puts, etcd.OpPut(fmt.Sprintf("%s%09d", prefix, n), value))
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_, err := e.client.Txn(ctx).Then(puts...).Commit()
		cancel()
		if err != nil {
			e.t.Fatal(err)
		}
	}
}

// CountByReading reads every key under prefix with its value, as any client does, and keeps none.
func (e *Etcd) CountByReading(prefix string) (count int) {
	e.t.Helper()
	const page = 500
	for key, end := prefix, etcd.GetPrefixRangeEnd(prefix); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		answer, err := e.client.Get(ctx, key, etcd.WithRange(end), etcd.WithLimit(page))
		cancel()
		if err != nil {
			e.t.Fatal(err)
		}
		count += len(answer.Kvs)
		if !answer.More {
			return count
		}
		key = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
	}
}

// Snapshot saves a snapshot as etcdctl does: the database, and its SHA-256 behind it.
func (e *Etcd) Snapshot(path string) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	from, err := e.client.Snapshot(ctx)
	if err != nil {
		e.t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		e.t.Fatal(err)
	}
	defer to.Close()
	if _, err := io.Copy(to, from); err != nil {
		e.t.Fatal(err)
	}
}

// Delete removes one key.
func (e *Etcd) Delete(key string) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := e.client.Delete(ctx, key); err != nil {
		e.t.Fatal(err)
	}
}

// FilesWith names the files of etcd, its log and its database with all old revisions, that contain text.
func (e *Etcd) FilesWith(text string) []string {
	e.t.Helper()
	var found []string
	err := filepath.WalkDir(e.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if os.IsNotExist(err) { // etcd renames its files while it runs
			return nil
		}
		if bytes.Contains(content, []byte(text)) {
			found = append(found, entry.Name())
		}
		return err
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return found
}
