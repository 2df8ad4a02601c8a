// Package envelope runs the code with which kube-apiserver encrypts what it stores against Nodeseal's socket.
package envelope

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/storage/value"
	aestransformer "k8s.io/apiserver/pkg/storage/value/encrypt/aes"
	envelopev1 "k8s.io/apiserver/pkg/storage/value/encrypt/envelope"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"
	"k8s.io/kms/pkg/service"

	"nodeseal.internal/tests/k8s/internal/product"
)

// timeout of one call, kube-apiserver's default.
const timeout = 3 * time.Second

var (
	secret = []byte("the content of a Secret")
	at     = value.DefaultContext("/registry/secrets/default/one") // where it is stored, which is authenticated
)

// apiServer is the state that one API server keeps for a KMS v2 provider.
type apiServer struct {
	service     service.Service
	state       kmsv2.State
	transformer value.Transformer
}

func newAPIServer(t *testing.T, p *product.Plugin) *apiServer {
	t.Helper()
	s, err := kmsv2.NewGRPCService(t.Context(), "unix://"+p.Socket, "nodeseal", timeout)
	if err != nil {
		t.Fatal(err)
	}
	a := &apiServer{service: s}
	a.transformer = kmsv2.NewEnvelopeTransformer(s, "nodeseal", func() (kmsv2.State, error) { return a.state, nil }, "tester")
	return a
}

// poll does what kube-apiserver does each minute: it asks for the Status and takes a new seed when key_id has moved.
func (a *apiServer) poll(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	status, err := a.service.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if status.Version != kmsv2.KMSAPIVersionv2 || status.Healthz != "ok" {
		t.Fatalf("status is %+v, want version v2 and healthz ok", status)
	}
	if _, err := kmsv2.ValidateKeyID(status.KeyID); err != nil {
		t.Fatal(err)
	}
	if status.KeyID == a.state.EncryptedObjectKeyID {
		a.state.ExpirationTimestamp = time.Now().Add(3 * time.Minute)
		return
	}
	uid := string(uuid.NewUUID())
	transformer, object, cacheKey, err := kmsv2.GenerateTransformer(ctx, uid, a.service, true)
	if err != nil {
		t.Fatal(err)
	}
	if object.KeyID != status.KeyID {
		t.Fatalf("Encrypt gives key_id %q and Status %q: kube-apiserver would drop the seed", object.KeyID, status.KeyID)
	}
	a.state = kmsv2.State{
		Transformer:                           transformer,
		EncryptedObjectKeyID:                  object.KeyID,
		EncryptedObjectEncryptedDEKSource:     object.EncryptedDEKSource,
		EncryptedObjectAnnotations:            object.Annotations,
		EncryptedObjectEncryptedDEKSourceType: object.EncryptedDEKSourceType,
		UID:                                   uid,
		ExpirationTimestamp:                   time.Now().Add(3 * time.Minute),
		CacheKey:                              cacheKey,
	}
}

func write(t *testing.T, transformer value.Transformer) []byte {
	t.Helper()
	stored, err := transformer.TransformToStorage(t.Context(), secret, at)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(stored, secret) {
		t.Fatal("what is stored holds the plaintext")
	}
	return stored
}

func read(t *testing.T, transformer value.Transformer, stored []byte, wantStale bool) {
	t.Helper()
	plain, stale, err := transformer.TransformFromStorage(t.Context(), stored, at)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(plain, secret) {
		t.Fatalf("read back %q, want %q", plain, secret)
	}
	if stale != wantStale {
		t.Fatalf("stale is %t, want %t", stale, wantStale)
	}
}

func keyIDOf(t *testing.T, stored []byte) string {
	t.Helper()
	var object kmstypes.EncryptedObject
	if err := proto.Unmarshal(stored, &object); err != nil {
		t.Fatal(err)
	}
	return object.KeyID
}

func TestV2DataIsReadByTheServerThatWroteItAndByAnother(t *testing.T) {
	p := product.Start(t)
	one, other := newAPIServer(t, p), newAPIServer(t, p)
	one.poll(t)
	other.poll(t)
	stored := write(t, one.transformer)
	read(t, one.transformer, stored, false)
	read(t, other.transformer, stored, false) // its cache is empty, so this is a Decrypt call
}

func TestV2DataOfTheOldKeyIsStaleAfterARotationAndStillRead(t *testing.T) {
	p := product.Start(t)
	a := newAPIServer(t, p)
	a.poll(t)
	old := write(t, a.transformer)
	before, after := p.Rotate()
	if got := keyIDOf(t, old); got != before {
		t.Fatalf("the old data carries key_id %q, want %q", got, before)
	}

	read(t, a.transformer, old, false) // The API server has not asked yet.
	a.poll(t)
	read(t, a.transformer, old, true)
	fresh := write(t, a.transformer)
	if got := keyIDOf(t, fresh); got != after {
		t.Fatalf("new data carries key_id %q, want %q", got, after)
	}
	read(t, a.transformer, fresh, false)

	restarted := newAPIServer(t, p)
	restarted.poll(t)
	read(t, restarted.transformer, old, true)
	read(t, restarted.transformer, fresh, false)
}

func TestV2DataSurvivesManyRotationsAndARestartOfThePlugin(t *testing.T) {
	p := product.Start(t)
	var stored [][]byte
	for range 4 {
		a := newAPIServer(t, p)
		a.poll(t)
		stored = append(stored, write(t, a.transformer))
		p.Rotate()
	}
	p.Stop()
	p.Start()
	a := newAPIServer(t, p)
	a.poll(t)
	for _, data := range stored {
		read(t, a.transformer, data, true)
	}
}

func TestV2DataThatWasTamperedWithIsNotRead(t *testing.T) {
	p := product.Start(t)
	a := newAPIServer(t, p)
	a.poll(t)
	stored := write(t, a.transformer)
	for what, change := range map[string]func(*kmstypes.EncryptedObject){
		"seed":       func(o *kmstypes.EncryptedObject) { o.EncryptedDEKSource[len(o.EncryptedDEKSource)-1] ^= 1 },
		"key_id":     func(o *kmstypes.EncryptedObject) { o.KeyID += "x" },
		"annotation": func(o *kmstypes.EncryptedObject) { o.Annotations = map[string][]byte{"x.wrap.nodeseal.internal": {1}} },
	} {
		var object kmstypes.EncryptedObject
		if err := proto.Unmarshal(stored, &object); err != nil {
			t.Fatal(err)
		}
		change(&object)
		data, err := proto.Marshal(&object)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := a.transformer.TransformFromStorage(t.Context(), data, at); err == nil {
			t.Errorf("data with another %s was read", what)
		}
	}
}

// newV1 makes the transformer of one API server. Without a cache each read is a call.
func newV1(t *testing.T, p *product.Plugin) value.Transformer {
	t.Helper()
	s, err := envelopev1.NewGRPCService(t.Context(), "unix://"+p.Socket, timeout)
	if err != nil {
		t.Fatal(err)
	}
	return envelopev1.NewEnvelopeTransformer(s, -1, aestransformer.NewGCMTransformer)
}

func TestV1DataIsReadByTheServerThatWroteItAndByAnother(t *testing.T) {
	p := product.Start(t)
	one, other := newV1(t, p), newV1(t, p)
	stored := write(t, one)
	read(t, one, stored, false)
	read(t, other, stored, false)
}

func TestV1DataOfTheOldKeyIsReadAfterARotationAndARestart(t *testing.T) {
	p := product.Start(t)
	transformer := newV1(t, p)
	old := write(t, transformer)
	p.Rotate()
	read(t, transformer, old, false) // v1 knows no staleness
	fresh := write(t, transformer)
	p.Stop()
	p.Start()
	restarted := newV1(t, p)
	read(t, restarted, old, false)
	read(t, restarted, fresh, false)
}

func TestV1WritesAtOnceAreAllReadBack(t *testing.T) {
	p := product.Start(t)
	transformer := newV1(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const writers = 64
	outcome := make(chan error, writers)
	for w := range writers {
		go func() {
			outcome <- func() error {
				for n := range 20 {
					text := fmt.Appendf(nil, "secret %d of writer %d", n, w)
					stored, err := transformer.TransformToStorage(ctx, text, at)
					if err != nil {
						return err
					}
					plain, _, err := transformer.TransformFromStorage(ctx, stored, at)
					if err != nil {
						return err
					}
					if !bytes.Equal(plain, text) {
						return fmt.Errorf("read back %q, want %q", plain, text)
					}
				}
				return nil
			}()
		}()
	}
	for range writers {
		if err := <-outcome; err != nil {
			t.Error(err)
		}
	}
}
