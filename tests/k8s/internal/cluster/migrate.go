package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"

	"nodeseal.internal/tests/k8s/internal/process"
)

// Migrator is a user without any right but those that a test gives it.
const Migrator = "nodeseal-migrate"

// URL is where the server listens.
func (a *APIServer) URL() string { return a.url }

// Kubeconfig writes one for the administrator of the tests, or for the Migrator, and returns its path.
func (a *APIServer) Kubeconfig(user string) string {
	a.t.Helper()
	token := map[string]string{"tester": a.token, Migrator: a.migrator}[user]
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
clusters:
- {name: test, cluster: {server: %q, certificate-authority: %q}}
contexts:
- {name: test, context: {cluster: test, user: test}}
users:
- {name: test, user: {token: %q}}
`, a.url, filepath.Join(a.dir, "certificates", "apiserver.crt"), token)
	return a.write(user+".kubeconfig", []byte(text))
}

// Apply makes every object of a file in YAML that begins with apiVersion and kind.
func (a *APIServer) Apply(documents []byte) {
	a.t.Helper()
	for _, document := range bytes.Split(documents, []byte("\n---\n")) {
		path := ""
		for kind, collection := range map[string]string{
			"ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings",
			"Role": "namespaces/%s/roles", "RoleBinding": "namespaces/%s/rolebindings",
		} {
			if !bytes.Contains(document, []byte("\nkind: "+kind+"\n")) {
				continue
			}
			path = "/apis/rbac.authorization.k8s.io/v1/" + collection
			if _, rest, found := bytes.Cut(document, []byte("\n  namespace: ")); found {
				namespace, _, _ := bytes.Cut(rest, []byte("\n"))
				path = fmt.Sprintf(path, namespace)
			}
		}
		code, answer, err := a.send(http.MethodPost, path, "application/yaml", bytes.NewReader(document))
		if err != nil || code != http.StatusCreated {
			a.t.Fatalf("%s: %d %v %s", path, code, err, answer)
		}
	}
}

// Raw reads any object of the API.
func (a *APIServer) Raw(path string) (code int, object map[string]any) {
	a.t.Helper()
	code, answer, err := a.request(http.MethodGet, path, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	if err := json.Unmarshal(answer, &object); err != nil {
		a.t.Fatalf("%s: %v: %.200s", path, err, answer)
	}
	return code, object
}

// StartControllerManager starts the two controllers that carry out storage migrations.
func StartControllerManager(t testing.TB, server *APIServer) *process.Process {
	t.Helper()
	kubeconfig := server.Kubeconfig("tester")
	return process.Start(t, process.Dir(t), "kube-controller-manager", exec.Command(
		process.Binary(t, "NODESEAL_SERVERS", "kube-controller-manager"),
		"--kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig,
		"--controllers=garbage-collector-controller,storage-version-migrator-controller",
		"--feature-gates=StorageVersionMigrator=true", "--leader-elect=false", "--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", process.Port(t)), "--use-service-account-credentials=false"))
}
