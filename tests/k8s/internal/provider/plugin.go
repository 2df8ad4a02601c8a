package provider

import (
	"fmt"
	"path/filepath"
	"testing"

	"nodeseal.internal/tests/k8s/internal/process"
	"nodeseal.internal/tests/k8s/internal/product"
)

// Plugin starts another Nodeseal, rooted in nothing but its own hardware, as the plugin that nodes let wrap their KEKs.
func Plugin(t testing.TB, name string) *Root {
	t.Helper()
	plugin := product.Start(t)
	socket := filepath.Join(process.Dir(t), "kms.sock")
	const service = "/v2.KeyManagementService/"
	return &Root{
		Link:   startSocketProxy(t, socket, plugin.Socket),
		Name:   name,
		table:  fmt.Sprintf("kind = \"kms-plugin\"\nsocket = %q\nkey = %q", socket, "tests/"+name),
		rotate: func() { plugin.Rotate() },
		wrap:   service + "Encrypt",
		unwrap: service + "Decrypt",
	}
}
