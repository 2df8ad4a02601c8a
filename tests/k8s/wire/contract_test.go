package wire

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	v1 "k8s.io/kms/apis/v1beta1"
	v2 "k8s.io/kms/apis/v2"

	"nodeseal.internal/tests/k8s/internal/kms"
	"nodeseal.internal/tests/k8s/internal/product"
)

// Limits of kube-apiserver: pkg/storage/value/encrypt/envelope/kmsv2/envelope.go of k8s.io/apiserver, and for v1 the
// two bytes of length that pkg/storage/value/encrypt/envelope/envelope.go writes.
const (
	maxKeyID       = 1024
	maxCipherV2    = 1024
	maxCipherV1    = 65535
	maxAnnotations = 32 * 1024
)

// semver is the expression of semver.org, without its named groups.
var semver = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)

func TestBothVersionsAnswerOnOneConnectionWithoutAnAuthority(t *testing.T) {
	connection := connect(t, product.Start(t))
	for _, api := range apis {
		c := client(t, api, connection)
		if _, err := c.Status(within(t)); err != nil {
			t.Errorf("%s status: %v", api, err)
		}
		if err := roundTrip(within(t), c); err != nil {
			t.Errorf("%s round trip: %v", api, err)
		}
	}
}

func TestVersionOfV1NamesTheAPIAndASemanticVersion(t *testing.T) {
	answer, err := v1.NewKeyManagementServiceClient(connect(t, product.Start(t))).
		Version(within(t), &v1.VersionRequest{Version: "v1beta1"})
	if err != nil {
		t.Fatal(err)
	}
	if answer.Version != "v1beta1" {
		t.Errorf("version is %q, want v1beta1", answer.Version)
	}
	if answer.RuntimeName == "" {
		t.Error("runtime_name is empty")
	}
	if !semver.MatchString(answer.RuntimeVersion) {
		t.Errorf("runtime_version %q is no semantic version", answer.RuntimeVersion)
	}
}

func TestAnswersOfV2KeepTheLimitsOfTheContract(t *testing.T) {
	raw := v2.NewKeyManagementServiceClient(connect(t, product.Start(t)))
	status, err := raw.Status(within(t), &v2.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if status.Version != "v2" || status.Healthz != "ok" {
		t.Errorf("status is version %q, healthz %q; want v2 and ok", status.Version, status.Healthz)
	}
	if n := len(status.KeyId); n == 0 || n > maxKeyID {
		t.Errorf("key_id has %d bytes, want 1 to %d", n, maxKeyID)
	}
	answer, err := raw.Encrypt(within(t), &v2.EncryptRequest{Plaintext: seed, Uid: "contract"})
	if err != nil {
		t.Fatal(err)
	}
	if answer.KeyId != status.KeyId {
		t.Errorf("Encrypt gives key_id %q and Status %q", answer.KeyId, status.KeyId)
	}
	if n := len(answer.Ciphertext); n == 0 || n > maxCipherV2 {
		t.Errorf("the ciphertext has %d bytes, want 1 to %d", n, maxCipherV2)
	}
	size := 0
	for name, value := range answer.Annotations {
		size += len(name) + len(value)
		// kube-apiserver's own judgement.
		if wrong := validation.IsFullyQualifiedDomainName(field.NewPath("annotations"), name); len(wrong) > 0 {
			t.Error(wrong.ToAggregate())
		}
		if bytes.Contains(value, seed) {
			t.Errorf("annotation %q holds the plaintext", name)
		}
	}
	if size > maxAnnotations {
		t.Errorf("annotations take %d bytes, the limit is %d", size, maxAnnotations)
	}
	if bytes.Contains(answer.Ciphertext, seed) {
		t.Error("the ciphertext holds the plaintext")
	}
}

func TestCiphertextOfV1FitsTwoBytesOfLengthAndHidesThePlaintext(t *testing.T) {
	text, err := client(t, "v1", connect(t, product.Start(t))).Encrypt(within(t), seed)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(text.Cipher); n == 0 || n > maxCipherV1 {
		t.Errorf("the ciphertext has %d bytes, want 1 to %d", n, maxCipherV1)
	}
	if bytes.Contains(text.Cipher, seed) {
		t.Error("the ciphertext holds the plaintext")
	}
}

func TestEncryptingTheSameTwiceGivesDifferentTexts(t *testing.T) {
	connection := connect(t, product.Start(t))
	for _, api := range apis {
		c := client(t, api, connection)
		first, err := c.Encrypt(within(t), seed)
		if err != nil {
			t.Fatal(err)
		}
		second, err := c.Encrypt(within(t), seed)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(first.Cipher, second.Cipher) {
			t.Errorf("%s: two encryptions gave the same ciphertext", api)
		}
	}
}

func Test256CallsAtOnceOnOneConnectionAllSucceed(t *testing.T) {
	p := product.Start(t)
	for _, api := range apis {
		t.Run(api, func(t *testing.T) {
			c := client(t, api, connect(t, p))
			ctx := within(t)
			for range 8 {
				var (
					gate  = make(chan struct{})
					calls sync.WaitGroup
					lock  sync.Mutex
					wrong []error
				)
				for range 256 {
					calls.Go(func() {
						<-gate
						if err := roundTrip(ctx, c); err != nil {
							lock.Lock()
							wrong = append(wrong, err)
							lock.Unlock()
						}
					})
				}
				close(gate)
				calls.Wait()
				if len(wrong) > 0 {
					t.Fatalf("%d of 256 failed, for example: %v", len(wrong), wrong[0])
				}
			}
		})
	}
}

func TestEncryptNeverDiffersFromTheStatusesAroundIt(t *testing.T) {
	p := product.Start(t)
	c := client(t, "v2", connect(t, p))
	ctx := within(t)
	stop := make(chan struct{})
	outcome := make(chan error, 1)
	texts := make(map[string]kms.Text)
	go func() {
		outcome <- func() error {
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				before, err := c.Status(ctx)
				if err != nil {
					return err
				}
				text, err := c.Encrypt(ctx, seed)
				if err != nil {
					return err
				}
				after, err := c.Status(ctx)
				if err != nil {
					return err
				}
				if before == after && text.KeyID != before {
					return fmt.Errorf("Encrypt gave key_id %q between two Statuses with %q", text.KeyID, before)
				}
				texts[text.KeyID] = text
			}
		}()
	}()
	seen := make(map[string]bool)
	for range 3 {
		before, after := p.Rotate()
		if seen[after] {
			t.Errorf("key_id %q came back", after)
		}
		seen[before], seen[after] = true, true
	}
	close(stop)
	if err := <-outcome; err != nil {
		t.Fatal(err)
	}
	if len(texts) < 2 {
		t.Fatalf("the loop saw %d key_ids, want it to have run across a rotation", len(texts))
	}
	for keyID, text := range texts {
		plain, err := c.Decrypt(ctx, text)
		if err == nil && !bytes.Equal(plain, seed) {
			err = errors.New("it gave something else")
		}
		if err != nil {
			t.Errorf("a text under %q, from before a rotation, does not decrypt: %v", keyID, err)
		}
	}
}
