package cluster

import (
	"io"
	"net/http"
	"testing"
)

// List reads a list as it stands, also one that kube-apiserver cannot make.
func (a *APIServer) List(path string) (code int, answer []byte) {
	a.t.Helper()
	code, answer, err := a.request(http.MethodGet, path, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	return code, answer
}

// DeleteAsMigrator makes a delete call as `kubectl delete --raw` does: with an empty body, its options in the query.
func (a *APIServer) DeleteAsMigrator(t *testing.T, uri string) (code int, answer string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodDelete, a.url+uri, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+a.migrator)
	response, err := a.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}
