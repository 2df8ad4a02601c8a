package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
)

// Namespace holds the Secrets of a test.
const Namespace = "sealed"

// Registry is where kube-apiserver keeps those Secrets in etcd.
const Registry = "/registry/secrets/" + Namespace + "/"

// Metadata is what these tests set or read of an object.
type Metadata struct {
	Name            string            `json:"name"`
	Annotations     map[string]string `json:"annotations,omitempty"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
}

// Secret is a Secret as far as these tests know it.
type Secret struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   Metadata          `json:"metadata"`
	Data       map[string][]byte `json:"data"`
}

// NewSecret makes a Secret with one entry.
func NewSecret(name string, value []byte) Secret {
	return Secret{APIVersion: "v1", Kind: "Secret", Metadata: Metadata{Name: name}, Data: map[string][]byte{"value": value}}
}

// CreateNamespace makes the Namespace.
func (a *APIServer) CreateNamespace() {
	a.t.Helper()
	object := map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": Metadata{Name: Namespace}}
	if err := a.do(http.MethodPost, "/api/v1/namespaces", object, nil, http.StatusCreated); err != nil {
		a.t.Fatal(err)
	}
}

const secrets = "/api/v1/namespaces/" + Namespace + "/secrets"

// CountSecrets lists every Secret of the Namespace: one that does not open fails the whole list.
func (a *APIServer) CountSecrets() (int, error) {
	var list struct {
		Items []Secret `json:"items"`
	}
	err := a.do(http.MethodGet, secrets, nil, &list, http.StatusOK)
	return len(list.Items), err
}

// Create writes a new Secret. No error means that it was acknowledged.
func (a *APIServer) Create(secret Secret) error {
	return a.do(http.MethodPost, secrets, secret, nil, http.StatusCreated)
}

// Get reads a Secret.
func (a *APIServer) Get(name string) (secret Secret, err error) {
	err = a.do(http.MethodGet, secrets+"/"+name, nil, &secret, http.StatusOK)
	return secret, err
}

// Replace writes a Secret that was read.
func (a *APIServer) Replace(secret Secret) error {
	return a.do(http.MethodPut, secrets+"/"+secret.Metadata.Name, secret, nil, http.StatusOK)
}

func (a *APIServer) do(method, path string, object, result any, want int) error {
	var body bytes.Buffer
	if object != nil {
		if err := json.NewEncoder(&body).Encode(object); err != nil {
			return err
		}
	}
	code, answer, err := a.request(method, path, &body)
	if err != nil {
		return err
	}
	if code != want {
		return fmt.Errorf("%s %s: %d: %.400s", method, path, code, answer)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer, result)
}
