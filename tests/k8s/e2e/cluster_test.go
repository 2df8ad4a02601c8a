// Package e2e stores Secrets through a real kube-apiserver in a real etcd, under keys of Nodeseal.
package e2e

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"

	"nodeseal.internal/tests/k8s/internal/cluster"
	"nodeseal.internal/tests/k8s/internal/process"
	"nodeseal.internal/tests/k8s/internal/product"
	"nodeseal.internal/tests/k8s/internal/provider"
)

// world is one control plane: plugin, etcd and kube-apiserver.
type world struct {
	api    api
	roots  []*provider.Root // that the plugin has beside its own hardware
	plugin *product.Plugin
	etcd   *cluster.Etcd
	server *cluster.APIServer
}

// api is what differs between the two versions of the KMS API.
type api struct {
	name      string
	arguments []string // of `nodeseal encryption-config`
	flags     []string // of kube-apiserver
	prefix    string   // of each value in etcd; the provider's name and a colon follow

	// rewrites tells whether kube-apiserver stores an unchanged object anew when its key is old. With v1 it cannot know.
	rewrites bool
	// sealed checks that what follows the prefix was made under key.
	sealed func(payload []byte, key product.Key) error
}

var kmsV2 = api{
	name:     "KMSv2",
	prefix:   "k8s:enc:kms:v2:",
	rewrites: true,
	sealed: func(payload []byte, key product.Key) error {
		var object kmstypes.EncryptedObject
		if err := proto.Unmarshal(payload, &object); err != nil {
			return err
		}
		if object.KeyID != key.KeyID {
			return fmt.Errorf("it carries key_id %q, want %q", object.KeyID, key.KeyID)
		}
		return names(object.EncryptedDEKSource, key)
	},
}

var kmsV1 = api{
	name:      "KMSv1",
	arguments: []string{"--api", "v1beta1"},
	flags:     []string{"--feature-gates=KMSv1=true"},
	prefix:    "k8s:enc:kms:v1:",
	sealed: func(payload []byte, key product.Key) error {
		if len(payload) < 2 {
			return errors.New("it is too short to hold a DEK")
		}
		size := int(binary.BigEndian.Uint16(payload))
		if size == 0 || len(payload) < 2+size {
			return fmt.Errorf("its DEK has %d bytes of %d", size, len(payload)-2)
		}
		return names(payload[2:2+size], key)
	},
}

// names checks that a text of ours carries the id of the local KEK that made it (docs/formats.md).
func names(text []byte, key product.Key) error {
	id, err := hex.DecodeString(key.ID)
	if err != nil || len(id) != 16 {
		return fmt.Errorf("%q is no id of a key", key.ID)
	}
	if !bytes.Contains(text, id) {
		return fmt.Errorf("its DEK is not under key %s", key.ID)
	}
	return nil
}

// begin starts everything on the EncryptionConfiguration that the tool prints.
func begin(t *testing.T, a api, roots ...*provider.Root) *world {
	t.Helper()
	w := &world{api: a, roots: roots, etcd: cluster.StartEtcd(t)}
	if len(roots) == 0 {
		w.plugin = product.Start(t)
	} else {
		w.plugin = product.StartWith(t, provider.Node("fastest", roots...))
		if mode := w.plugin.Status().Mode; mode != "rooted" {
			t.Fatalf("the mode is %q", mode)
		}
	}
	configuration := w.plugin.EncryptionConfiguration(a.arguments...)
	w.server = cluster.StartAPIServer(t, w.etcd, configuration, a.flags...)
	w.server.CreateNamespace()
	t.Logf("kube-apiserver was ready after %v", w.server.Started)
	return w
}

// rotate moves the key_id: with providers by a new version of each one's key, or by another epoch of the operator's where keys have
// no versions; without providers by a new KEK.
func (w *world) rotate(t *testing.T) {
	t.Helper()
	if len(w.roots) == 0 {
		w.plugin.Rotate()
		return
	}
	before := w.plugin.Status().KeyID
	for _, root := range w.roots {
		if root.Rotates() {
			root.Rotate()
		} else {
			w.plugin.Reconfigure("epoch = 0", "epoch = 1")
		}
	}
	moved(t, before, w.plugin)
}

// moved waits until no node reports the key_id from before any more and each has settled.
func moved(t *testing.T, before string, plugins ...*product.Plugin) {
	t.Helper()
	for _, plugin := range plugins {
		err := process.Until(60*time.Second, 100*time.Millisecond, func() error {
			if now := plugin.Settled().KeyID; now == before {
				return fmt.Errorf("key_id is %s as before", now)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// renew makes a new KEK and turns to it.
func (w *world) renew(t *testing.T) {
	t.Helper()
	if len(w.roots) == 0 {
		w.plugin.Rotate()
	} else if before, after := w.plugin.Renew(); before != after {
		t.Fatalf("a new KEK moved key_id from %s to %s, which names the keys of providers", before, after)
	}
}

// unwrap takes the prefix off a value of etcd.
func (w *world) unwrap(t *testing.T, key string, value []byte) []byte {
	t.Helper()
	rest, ok := bytes.CutPrefix(value, []byte(w.api.prefix))
	_, payload, named := bytes.Cut(rest, []byte(":"))
	if !ok || !named {
		t.Fatalf("%s is stored as %.60q, want it to begin with %s", key, value, w.api.prefix)
	}
	return payload
}

// payload returns what etcd holds of one Secret.
func (w *world) payload(t *testing.T, name string) []byte {
	t.Helper()
	return w.unwrap(t, name, w.etcd.Get(cluster.Registry+name))
}

// sealedUnder returns how many Secrets are stored, and what is wrong with the first that is not under key.
func (w *world) sealedUnder(t *testing.T, key product.Key) (count int, err error) {
	t.Helper()
	for name, value := range w.etcd.Values(cluster.Registry) {
		count++
		if wrong := w.api.sealed(w.unwrap(t, name, value), key); wrong != nil && err == nil {
			err = fmt.Errorf("%s: %w", name, wrong)
		}
	}
	return count, err
}
