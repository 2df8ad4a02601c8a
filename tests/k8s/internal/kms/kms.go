// Package kms speaks both versions of the Kubernetes KMS API through one small interface, over the grpc-go that
// kube-apiserver itself uses.
package kms

import (
	"context"
	"fmt"
	"net"
	"net/url"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/apimachinery/pkg/util/uuid"
	v1 "k8s.io/kms/apis/v1beta1"
	v2 "k8s.io/kms/apis/v2"
)

// Text is what Encrypt answers and Decrypt takes. v1 fills Cipher alone.
type Text struct {
	Cipher      []byte
	KeyID       string
	Annotations map[string][]byte
}

// Clone copies a text so deeply that the copy may be tampered with.
func (t Text) Clone() Text {
	c := Text{Cipher: append([]byte(nil), t.Cipher...), KeyID: t.KeyID}
	if t.Annotations != nil {
		c.Annotations = make(map[string][]byte, len(t.Annotations))
		for k, v := range t.Annotations {
			c.Annotations[k] = append([]byte(nil), v...)
		}
	}
	return c
}

// Client is one version of the API on one connection.
type Client interface {
	// Status is Version in v1, which knows no key_id and leaves it empty.
	Status(ctx context.Context) (keyID string, err error)
	Encrypt(ctx context.Context, plain []byte) (Text, error)
	Decrypt(ctx context.Context, text Text) ([]byte, error)
}

// Dial connects as kube-apiserver does: the target is the path of the socket and a dialer of our own opens it. Without
// an option that says otherwise, grpc-go then sends the percent-encoded path as :authority.
func Dial(socket string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	return DialAs(socket, socket, options...)
}

// DialAs connects to socket but lets grpc-go believe that its path is target, which is what :authority is made of.
func DialAs(socket, target string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	dialer := func(ctx context.Context, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	address := url.URL{Scheme: "passthrough", Path: "/" + target}
	return grpc.NewClient(address.String(), append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		grpc.WithContextDialer(dialer),
	}, options...)...)
}

// New returns the client for api, "v1" or "v2".
func New(api string, connection grpc.ClientConnInterface) (Client, error) {
	switch api {
	case "v1":
		return clientV1{v1.NewKeyManagementServiceClient(connection)}, nil
	case "v2":
		return clientV2{v2.NewKeyManagementServiceClient(connection)}, nil
	}
	return nil, fmt.Errorf("api %q: want v1 or v2", api)
}

// versionV1 is what kube-apiserver puts into every v1 request.
const versionV1 = "v1beta1"

type clientV1 struct{ v1.KeyManagementServiceClient }

func (c clientV1) Status(ctx context.Context) (string, error) {
	_, err := c.Version(ctx, &v1.VersionRequest{Version: versionV1})
	return "", err
}

func (c clientV1) Encrypt(ctx context.Context, plain []byte) (Text, error) {
	r, err := c.KeyManagementServiceClient.Encrypt(ctx, &v1.EncryptRequest{Version: versionV1, Plain: plain})
	return Text{Cipher: r.GetCipher()}, err
}

func (c clientV1) Decrypt(ctx context.Context, text Text) ([]byte, error) {
	r, err := c.KeyManagementServiceClient.Decrypt(ctx, &v1.DecryptRequest{Version: versionV1, Cipher: text.Cipher})
	return r.GetPlain(), err
}

type clientV2 struct{ v2.KeyManagementServiceClient }

func (c clientV2) Status(ctx context.Context) (string, error) {
	r, err := c.KeyManagementServiceClient.Status(ctx, &v2.StatusRequest{})
	return r.GetKeyId(), err
}

func (c clientV2) Encrypt(ctx context.Context, plain []byte) (Text, error) {
	r, err := c.KeyManagementServiceClient.Encrypt(ctx, &v2.EncryptRequest{Plaintext: plain, Uid: string(uuid.NewUUID())})
	return Text{Cipher: r.GetCiphertext(), KeyID: r.GetKeyId(), Annotations: r.GetAnnotations()}, err
}

func (c clientV2) Decrypt(ctx context.Context, text Text) ([]byte, error) {
	r, err := c.KeyManagementServiceClient.Decrypt(ctx, &v2.DecryptRequest{
		Ciphertext: text.Cipher, Uid: string(uuid.NewUUID()), KeyId: text.KeyID, Annotations: text.Annotations,
	})
	return r.GetPlaintext(), err
}
