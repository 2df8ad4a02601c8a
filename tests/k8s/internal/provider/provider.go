// Package provider runs what nodes take for their roots of trust, for the length of a test: a server, its key, a login for each
// node, and a proxy before it by which it is taken away and its calls are counted.
package provider

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nodeseal.internal/tests/k8s/internal/product"
)

// Kinds are all providers that there is a server for. Another one is a line here and a function that starts it.
var Kinds = []Kind{
	{"vault", Vault},
	{"aws", AWS},
	{"azure", Azure},
	{"kms-plugin", Plugin},
	{"pkcs11", Token},
}

// Kind is one kind of provider.
type Kind struct {
	Name  string
	Start func(t testing.TB, name string) *Root
}

// Link is the way to a provider.
type Link interface {
	// Off takes the provider away; On brings it back.
	Off()
	On()
	// Calls returns how often each thing was asked of it since it was started.
	Calls() map[string]int
}

// Root is a running provider.
type Root struct {
	Link // nil if it is no server
	// Name is what the configuration calls it.
	Name string

	table  string        // what else is in its [[provider]], TOML
	secret func() []byte // makes another login, as it is sealed; nil if it needs none
	token  string        // folder of the token that it is, if it is one
	rotate func()        // nil if its key has no versions
	// What wrapping and unwrapping are among its calls.
	wrap, unwrap string
}

// Rotates tells whether its key can have a new version, and Rotate makes one.
func (r *Root) Rotates() bool { return r.rotate != nil }
func (r *Root) Rotate()       { r.rotate() }

// Table is its [[provider]], with these lines of its role.
func (r *Root) Table(role string) string {
	return fmt.Sprintf("[[provider]]\nname = %q\n%s\n%s\n", r.Name, role, r.table)
}

// Wraps and Unwraps tell how many KEKs it has wrapped and opened. Some providers open what they have wrapped once at birth.
func (r *Root) Wraps() int   { return r.Calls()[r.wrap] }
func (r *Root) Unwraps() int { return r.Calls()[r.unwrap] }

// Node is how a node with these roots is set up. The strategy is that of decrypting. One root alone is required; of several any
// one is enough.
func Node(strategy string, roots ...*Root) product.Setup {
	setup := product.Setup{Credentials: make(map[string][]byte)}
	var text strings.Builder
	// As soon as can be configured: tests wait for what these say.
	fmt.Fprintf(&text, "[write]\nepoch = 0\nprobe_every = \"1s\"\nactivation_delay = \"2s\"\n[decrypt]\nstrategy = %q\n", strategy)
	for _, root := range roots {
		fmt.Fprintf(&text, "[[provider]]\nname = %q\nrequired = %t\n%s\n", root.Name, len(roots) == 1, root.table)
		if root.secret != nil {
			setup.Credentials[root.Name] = root.secret()
		}
		if root.token != "" {
			setup.Token = root.token
		}
	}
	setup.Fragment = text.String()
	return setup
}

// python is the server of tests/providers/aws or tests/providers/azure with its arguments.
func python(t testing.TB, kind string, arguments ...string) *exec.Cmd {
	t.Helper()
	variable := "NODESEAL_" + strings.ToUpper(kind)
	interpreter, tests := os.Getenv(variable), os.Getenv("NODESEAL_TESTS")
	if interpreter == "" || tests == "" {
		t.Fatalf("%s is not set: run `make e2e`, which makes what these tests start and tells them where it is", variable)
	}
	server := exec.Command(interpreter, append([]string{filepath.Join(tests, "providers", kind, "server.py")}, arguments...)...)
	server.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	return server
}
