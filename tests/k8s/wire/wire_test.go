// Package wire tests what crosses the socket, with the gRPC of Kubernetes and no authority override: what every KMS v1
// client sends, and every KMS v2 client up to Kubernetes 1.31.
package wire

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	v2 "k8s.io/kms/apis/v2"

	"nodeseal.internal/tests/k8s/internal/kms"
	"nodeseal.internal/tests/k8s/internal/process"
	"nodeseal.internal/tests/k8s/internal/product"
)

// seed is as long as what kube-apiserver sends, and easy to recognise where it must not be.
var seed = []byte("canary-of-32-bytes-in-plain-text")

var apis = []string{"v1", "v2"}

// within bounds every exchange of these tests.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// connect opens a connection of its own.
func connect(t testing.TB, p *product.Plugin, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	connection, err := kms.Dial(p.Socket, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return connection
}

func client(t testing.TB, api string, connection grpc.ClientConnInterface) kms.Client {
	t.Helper()
	c, err := kms.New(api, connection)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// roundTrip encrypts and decrypts the seed.
func roundTrip(ctx context.Context, c kms.Client) error {
	text, err := c.Encrypt(ctx, seed)
	if err != nil {
		return err
	}
	plain, err := c.Decrypt(ctx, text)
	if err != nil {
		return err
	}
	if !bytes.Equal(plain, seed) {
		return errNotSame
	}
	return nil
}

type sentence string

func (s sentence) Error() string { return string(s) }

const errNotSame = sentence("Decrypt gave something else than was encrypted")

// spy is a server that keeps the authority it was called with.
type spy struct {
	v2.UnimplementedKeyManagementServiceServer
	authority chan []string
}

func (s spy) Status(ctx context.Context, _ *v2.StatusRequest) (*v2.StatusResponse, error) {
	values, _ := metadata.FromIncomingContext(ctx)
	s.authority <- values.Get(":authority")
	return &v2.StatusResponse{}, nil
}

// Without this, the package would prove nothing the day grpc-go begins to send "localhost".
func TestClientOfTheseTestsSendsTheEncodedPathAsAuthority(t *testing.T) {
	socket := filepath.Join(process.Dir(t), "spy.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := spy{authority: make(chan []string, 1)}
	server := grpc.NewServer()
	v2.RegisterKeyManagementServiceServer(server, s)
	go server.Serve(listener)
	defer server.Stop()

	connection, err := kms.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if _, err := client(t, "v2", connection).Status(within(t)); err != nil {
		t.Fatal(err)
	}
	got := <-s.authority
	if len(got) != 1 || !bytes.Contains([]byte(got[0]), []byte("%2F")) {
		t.Fatalf("authority is %q, want the path with its slashes encoded", got)
	}
}
