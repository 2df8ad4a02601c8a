package provider

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"nodeseal.internal/tests/k8s/internal/process"
)

// Token makes a token of SoftHSM that nodes share, as `nodeseal dev` makes one for a single node.
func Token(t testing.TB, name string) *Root {
	t.Helper()
	dir := process.Dir(t)
	objects, conf, pin := filepath.Join(dir, "tokens"), filepath.Join(dir, "softhsm2.conf"), rand.Text()
	if err := os.Mkdir(objects, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		conf:                      "directories.tokendir = " + objects + "\nobjectstore.backend = file\nlog.level = ERROR\n",
		filepath.Join(dir, "pin"): pin,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "nodeseal-dev", "--pin", pin, "--so-pin", rand.Text())
	command.Env = append(os.Environ(), "SOFTHSM2_CONF="+conf)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("softhsm2-util: %v\n%s", err, out)
	}
	return &Root{
		Name:  name,
		table: fmt.Sprintf("kind = \"pkcs11\"\nkey_label = %q\nmake_key = true", "shared by nodes"),
		token: dir,
	}
}
