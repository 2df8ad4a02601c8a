package envelope

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"
	utilfeature "k8s.io/apiserver/pkg/util/feature"

	"nodeseal.internal/tests/k8s/internal/process"
	"nodeseal.internal/tests/k8s/internal/product"
)

// load gives a configuration to the code with which kube-apiserver starts, and waits until it finds the plugin healthy.
func load(t *testing.T, text []byte) (value.Transformer, func() error) {
	t.Helper()
	file := filepath.Join(process.Dir(t), "encryption.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	configuration, err := encryptionconfig.LoadEncryptionConfig(t.Context(), file, false, "tester")
	if err != nil {
		t.Fatalf("kube-apiserver does not take this configuration: %v\n%s", err, text)
	}
	transformer := configuration.Transformers[schema.GroupResource{Resource: "secrets"}]
	if transformer == nil {
		t.Fatalf("Secrets are not covered by this configuration:\n%s", text)
	}
	healthy := func() error {
		for _, check := range configuration.HealthChecks {
			if err := check.Check((&http.Request{}).WithContext(t.Context())); err != nil {
				return err
			}
		}
		return nil
	}
	if len(configuration.HealthChecks) == 0 {
		t.Fatal("the configuration has no health check, so no KMS provider")
	}
	if err := process.Until(20*time.Second, 50*time.Millisecond, healthy); err != nil {
		t.Fatalf("the plugin is not healthy to kube-apiserver: %v", err)
	}
	return transformer, healthy
}

func TestThePrintedConfigurationForV2IsTakenAndFollowsARotation(t *testing.T) {
	p := product.Start(t)
	transformer, healthy := load(t, p.EncryptionConfiguration())
	stored := write(t, transformer)
	read(t, transformer, stored, false)

	p.Rotate()
	begin := time.Now()
	// kube-apiserver believes a good answer for 20 s, and asks again at the next health check after that.
	err := process.Until(25*time.Second, 200*time.Millisecond, func() error {
		if err := healthy(); err != nil {
			return err
		}
		_, stale, err := transformer.TransformFromStorage(t.Context(), stored, at)
		if err == nil && !stale {
			err = errFresh
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the rotation was followed after %v", time.Since(begin).Round(time.Millisecond))
	read(t, transformer, write(t, transformer), false)
}

type sentence string

func (s sentence) Error() string { return string(s) }

const errFresh = sentence("data of the old key is not stale yet")

func TestThePrintedConfigurationForV1IsTaken(t *testing.T) {
	p := product.Start(t)
	if err := utilfeature.DefaultMutableFeatureGate.SetFromMap(map[string]bool{string(features.KMSv1): true}); err != nil {
		t.Fatal(err)
	}
	transformer, healthy := load(t, p.EncryptionConfiguration("--api", "v1beta1"))
	read(t, transformer, write(t, transformer), false)
	if err := healthy(); err != nil {
		t.Fatal(err)
	}
}
