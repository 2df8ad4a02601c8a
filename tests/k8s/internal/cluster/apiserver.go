// Package cluster runs kube-apiserver and etcd without anything else of Kubernetes, for the length of a test.
package cluster

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"nodeseal.internal/tests/k8s/internal/process"
)

// APIServer is a running kube-apiserver and what is needed to start it again.
type APIServer struct {
	t     testing.TB
	dir   string
	url   string
	token string

	migrator string // token of Migrator
	flags    []string
	server   *process.Process
	client   *http.Client
	Started  time.Duration // from exec to ready, the last time
}

// StartAPIServer starts kube-apiserver on etcd with an EncryptionConfiguration and waits until it is ready.
func StartAPIServer(t testing.TB, etcd *Etcd, encryption []byte, flags ...string) *APIServer {
	t.Helper()
	return start(t, &APIServer{t: t, dir: process.Dir(t), token: rand.Text(), migrator: rand.Text()}, etcd, encryption, flags)
}

// StartBeside starts another server of the same cluster: with the same certificate and users.
func (a *APIServer) StartBeside(etcd *Etcd, encryption []byte, flags ...string) *APIServer {
	a.t.Helper()
	b := &APIServer{t: a.t, dir: process.Dir(a.t), token: a.token, migrator: a.migrator}
	if err := os.CopyFS(filepath.Join(b.dir, "certificates"), os.DirFS(filepath.Join(a.dir, "certificates"))); err != nil {
		a.t.Fatal(err)
	}
	return start(a.t, b, etcd, encryption, flags)
}

func start(t testing.TB, a *APIServer, etcd *Etcd, encryption []byte, flags []string) *APIServer {
	t.Helper()
	port := process.Port(t)
	a.url = fmt.Sprintf("https://127.0.0.1:%d", port)

	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	account := a.write("service-account.key", pem.EncodeToMemory(&pem.Block{
		Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key),
	}))
	a.flags = append([]string{
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port),
		"--endpoint-reconciler-type=none", "--cert-dir=" + filepath.Join(a.dir, "certificates"),
		"--etcd-servers=" + etcd.URL,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file=" + account, "--service-account-key-file=" + account,
		"--token-auth-file=" + a.write("tokens.csv", []byte(a.token+",tester,tester,system:masters\n"+a.migrator+","+Migrator+","+Migrator+"\n")),
		"--anonymous-auth=false", "--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24",
		"--disable-admission-plugins=ServiceAccount",
		// The tests ask for more at once than priority and fairness would let through on a small machine.
		"--enable-priority-and-fairness=false",
		"--encryption-provider-config=" + a.write("encryption.yaml", encryption),
	}, flags...)
	a.Start()
	return a
}

func (a *APIServer) write(name string, content []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// Start starts the server again after Stop.
func (a *APIServer) Start() {
	a.t.Helper()
	begin := time.Now()
	binary := process.Binary(a.t, "NODESEAL_SERVERS", "kube-apiserver")
	a.server = process.Start(a.t, a.dir, "kube-apiserver", exec.Command(binary, a.flags...))
	a.client = nil
	err := process.Until(90*time.Second, 10*time.Millisecond, func() error {
		select {
		case <-a.server.Done():
			a.t.Fatal("kube-apiserver ended before it was ready")
		default:
		}
		if a.client == nil {
			if err := a.trust(); err != nil {
				return err
			}
		}
		return a.Ready()
	})
	if err != nil {
		a.t.Fatalf("kube-apiserver is not ready: %v", err)
	}
	a.Started = time.Since(begin)
}

// Stop ends the server in good order.
func (a *APIServer) Stop() {
	// A connection that carried no request yet holds the server up for five seconds.
	a.client.CloseIdleConnections()
	begin := time.Now()
	a.server.Stop()
	a.t.Logf("kube-apiserver had ended after %v", time.Since(begin))
}

// trust makes a client for the certificate that the server has signed for itself.
func (a *APIServer) trust() error {
	certificates, err := os.ReadFile(filepath.Join(a.dir, "certificates", "apiserver.crt"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(certificates) {
		return errors.New("the server's certificate is not written yet")
	}
	a.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: roots},
		MaxIdleConnsPerHost: 64,
	}}
	return nil
}

// Ready asks readyz, which makes kube-apiserver look at its KMS plugin, and says what is not ready.
func (a *APIServer) Ready() error {
	code, body, err := a.request(http.MethodGet, "/readyz?verbose", nil)
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return fmt.Errorf("readyz answers %d: %s", code, body)
	}
	return nil
}

func (a *APIServer) request(method, path string, body io.Reader) (int, []byte, error) {
	return a.send(method, path, "application/json", body)
}

func (a *APIServer) send(method, path, kind string, body io.Reader) (int, []byte, error) {
	request, err := http.NewRequest(method, a.url+path, body)
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	request.Header.Set("Content-Type", kind)
	response, err := a.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}
