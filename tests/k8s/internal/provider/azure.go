package provider

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"testing"
	"time"

	"nodeseal.internal/tests/k8s/internal/process"
)

const (
	application       = "22222222-3333-4444-5555-666666666666"
	applicationSecret = "an.example~of-a-secret"
)

// Azure starts a vault with a tenant (see tests/providers/azure) with one key of RSA.
func Azure(t testing.TB, name string) *Root {
	t.Helper()
	dir := process.Dir(t)
	command := python(t, "azure", dir)
	// It ends when its standard input does.
	if _, err := command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	server := process.Start(t, dir, name, command)
	var ready struct {
		Plain            int
		Tenant, Resource string
	}
	err := process.Until(60*time.Second, 20*time.Millisecond, func() error {
		select {
		case <-server.Done():
			t.Fatal("the server of Azure ended before it was ready")
		default:
		}
		text, err := os.ReadFile(filepath.Join(dir, "ready.json"))
		if err != nil {
			return err
		}
		return json.Unmarshal(text, &ready)
	})
	if err != nil {
		t.Fatalf("the server of Azure does not get ready: %v", err)
	}
	address := fmt.Sprintf("http://127.0.0.1:%d", ready.Plain)

	// What an administrator of the tenant does.
	administer := func(operation string, input map[string]any) {
		body, err := json.Marshal(input)
		if err != nil {
			t.Fatal(err)
		}
		request, err := http.NewRequest(http.MethodPost, address+"/door/"+operation, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := send(request); err != nil {
			t.Fatal(err)
		}
	}
	keys := func(operation string, input map[string]any) {
		administer("key", map[string]any{"method": http.MethodPost, "path": "keys/kubernetes/" + operation, "body": input})
	}
	administer("client", map[string]any{
		"client": application, "secret": applicationSecret, "rights": []string{"read", "wrap/action", "unwrap/action"},
	})
	keys("create", map[string]any{"kty": "RSA", "key_size": 2048})

	proxy := startProxy(t, address, func(r *http.Request) string { return path.Base(r.URL.Path) })
	return &Root{
		Link: proxy,
		Name: name,
		table: fmt.Sprintf("kind = \"azure\"\nvault_url = %[1]q\nauthority = %[1]q\nresource = %[2]q\nkey = \"kubernetes\"\n"+
			"algorithm = \"RSA-OAEP-256\"\nauth = { method = \"client-secret\", tenant_id = %[3]q, client_id = %[4]q, credential = %[5]q }",
			proxy.url(), ready.Resource, ready.Tenant, application, name),
		secret: func() []byte { return []byte(applicationSecret) },
		rotate: func() { keys("rotate", nil) },
		wrap:   "wrapkey",
		unwrap: "unwrapkey",
	}
}
