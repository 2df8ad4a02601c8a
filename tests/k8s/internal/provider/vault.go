package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"testing"
	"time"

	"nodeseal.internal/tests/k8s/internal/process"
)

const rootToken = "root-of-the-tests"

// vault is a Vault in memory, and its operator.
type vault struct {
	t   testing.TB
	url string
}

// Vault starts a Vault with what docs/providers/vault.md sets up, on a mount of the provider's name.
func Vault(t testing.TB, name string) *Root {
	t.Helper()
	dir := process.Dir(t)
	address := fmt.Sprintf("127.0.0.1:%d", process.Port(t))
	v := &vault{t: t, url: "http://" + address}
	command := exec.Command(process.Binary(t, "NODESEAL_SERVERS", "vault"), "server", "-dev", "-dev-no-store-token",
		"-log-level=warn", "-dev-root-token-id="+rootToken, "-dev-listen-address="+address)
	command.Env = []string{"HOME=" + dir}
	server := process.Start(t, dir, name, command)
	err := process.Until(60*time.Second, 50*time.Millisecond, func() error {
		select {
		case <-server.Done():
			t.Fatal("Vault ended before it was ready")
		default:
		}
		_, err := v.ask(http.MethodGet, "sys/health", nil)
		return err
	})
	if err != nil {
		t.Fatalf("Vault does not answer: %v", err)
	}

	v.must("sys/mounts/"+name, map[string]any{"type": "transit"})
	key := name + "/keys/kubernetes"
	v.must(key, map[string]any{"type": "aes256-gcm96"})
	policy := fmt.Sprintf(`
		path "%[1]s/keys/kubernetes"    { capabilities = ["read"] }
		path "%[1]s/encrypt/kubernetes" { capabilities = ["update"] }
		path "%[1]s/decrypt/kubernetes" { capabilities = ["update"] }`, name)
	v.must("sys/policies/acl/nodeseal", map[string]any{"policy": policy})
	v.must("sys/auth/approle", map[string]any{"type": "approle"})
	const role = "auth/approle/role/nodeseal"
	v.must(role, map[string]any{"token_policies": "nodeseal", "token_ttl": "1h", "token_max_ttl": "24h"})

	proxy := startProxy(t, v.url, func(r *http.Request) string { return r.URL.Path })
	return &Root{
		Link: proxy,
		Name: name,
		table: fmt.Sprintf("kind = \"vault\"\naddress = %q\nmount = %q\nkey = \"kubernetes\"\n"+
			"auth = { method = \"approle\", role = \"nodeseal\", credential = %q }", proxy.url(), name, name),
		secret: func() []byte {
			login := map[string]any{
				"role_id":   v.get(role + "/role-id")["role_id"],
				"secret_id": v.must(role+"/secret-id", nil)["secret_id"],
			}
			text, err := json.Marshal(login)
			if err != nil {
				t.Fatal(err)
			}
			return text
		},
		rotate: func() { v.must(key+"/rotate", nil) },
		wrap:   "/v1/" + name + "/encrypt/kubernetes",
		unwrap: "/v1/" + name + "/decrypt/kubernetes",
	}
}

func (v *vault) get(path string) map[string]any {
	v.t.Helper()
	data, err := v.ask(http.MethodGet, path, nil)
	if err != nil {
		v.t.Fatal(err)
	}
	return data
}

func (v *vault) must(path string, input map[string]any) map[string]any {
	v.t.Helper()
	data, err := v.ask(http.MethodPost, path, input)
	if err != nil {
		v.t.Fatal(err)
	}
	return data
}

// ask does one thing as the operator and returns the data of the answer.
func (v *vault) ask(method, path string, input map[string]any) (map[string]any, error) {
	body, err := json.Marshal(input)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(method, v.url+"/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("X-Vault-Token", rootToken)
	text, err := send(request)
	if err != nil || len(text) == 0 {
		return nil, err
	}
	var answer struct {
		Data map[string]any `json:"data"`
	}
	return answer.Data, json.Unmarshal(text, &answer)
}

// operator is the client for what is done to servers. Its connections are not kept: the servers are stopped in the end.
var operator = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// send makes a request to a server as its operator.
func send(request *http.Request) ([]byte, error) {
	response, err := operator.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= http.StatusBadRequest {
		err = errors.New(response.Status)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %.400s", request.Method, request.URL, err, text)
	}
	return text, nil
}
