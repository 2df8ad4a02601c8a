// Command plugin is a KMS plugin as its makers write one: Kubernetes' own server of KMS v2 (k8s.io/kms) over grpc-go, and
// beside it KMS v1beta1. Its key lives as long as the process, or in a file. The tests of the provider `kms-plugin` use it.
//
// usage: plugin SOCKET [KEYFILE]
package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1beta1 "k8s.io/kms/apis/v1beta1"
	v2 "k8s.io/kms/apis/v2"
	"k8s.io/kms/pkg/service"
)

const annotation = "iv.plugin.example"

func main() {
	if len(os.Args) < 2 || len(os.Args) > 3 {
		fmt.Fprintln(os.Stderr, "usage: plugin SOCKET [KEYFILE]")
		os.Exit(64)
	}
	if err := serve(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// stored is 32 bytes of key and 8 of its id, from the file if there is one.
func stored(file []string) ([]byte, error) {
	if len(file) > 0 {
		if known, err := os.ReadFile(file[0]); err == nil && len(known) == 40 {
			return known, nil
		}
	}
	made := make([]byte, 40)
	if _, err := rand.Read(made); err != nil {
		return nil, err
	}
	if len(file) > 0 {
		return made, os.WriteFile(file[0], made, 0o600)
	}
	return made, nil
}

func serve(socket string, file []string) error {
	made, err := stored(file)
	if err != nil {
		return err
	}
	key, id := made[:32], made[32:]
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return err
	}
	k := &kek{gcm: gcm, id: "key " + hex.EncodeToString(id)}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	v2.RegisterKeyManagementServiceServer(server, service.NewGRPCService(socket, 0, k))
	v1beta1.RegisterKeyManagementServiceServer(server, &first{kek: k})
	fmt.Println("ready")
	return server.Serve(listener)
}

// kek encrypts with AES-256-GCM. In v2 the nonce is an annotation, so that a lost annotation is noticed.
type kek struct {
	gcm cipher.AEAD
	id  string
}

func (k *kek) Status(context.Context) (*service.StatusResponse, error) {
	return &service.StatusResponse{Version: "v2", Healthz: "ok", KeyID: k.id}, nil
}

func (k *kek) Encrypt(_ context.Context, uid string, data []byte) (*service.EncryptResponse, error) {
	if uid == "" {
		return nil, errors.New("no uid")
	}
	nonce := make([]byte, k.gcm.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	text := k.gcm.Seal(nil, nonce, data, nil)
	return &service.EncryptResponse{Ciphertext: text, KeyID: k.id, Annotations: map[string][]byte{annotation: nonce}}, nil
}

func (k *kek) Decrypt(_ context.Context, uid string, req *service.DecryptRequest) ([]byte, error) {
	nonce := req.Annotations[annotation]
	if uid == "" || req.KeyID != k.id || len(nonce) != k.gcm.NonceSize() {
		return nil, status.Error(codes.InvalidArgument, "not as it was given")
	}
	data, err := k.gcm.Open(nil, nonce, req.Ciphertext, nil)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return data, nil
}

// first is the same key in KMS v1beta1: the nonce is in front of the text.
type first struct {
	v1beta1.UnimplementedKeyManagementServiceServer
	kek *kek
}

func (f *first) Version(context.Context, *v1beta1.VersionRequest) (*v1beta1.VersionResponse, error) {
	return &v1beta1.VersionResponse{Version: "v1beta1", RuntimeName: "plugin", RuntimeVersion: "1.0.0"}, nil
}

func (f *first) Encrypt(ctx context.Context, req *v1beta1.EncryptRequest) (*v1beta1.EncryptResponse, error) {
	made, err := f.kek.Encrypt(ctx, "v1beta1", req.Plain)
	if err != nil {
		return nil, err
	}
	return &v1beta1.EncryptResponse{Cipher: append(made.Annotations[annotation], made.Ciphertext...)}, nil
}

func (f *first) Decrypt(ctx context.Context, req *v1beta1.DecryptRequest) (*v1beta1.DecryptResponse, error) {
	at := f.kek.gcm.NonceSize()
	if len(req.Cipher) < at {
		return nil, status.Error(codes.InvalidArgument, "too short")
	}
	given := &service.DecryptRequest{
		Ciphertext:  req.Cipher[at:],
		KeyID:       f.kek.id,
		Annotations: map[string][]byte{annotation: req.Cipher[:at]},
	}
	data, err := f.kek.Decrypt(ctx, "v1beta1", given)
	if err != nil {
		return nil, err
	}
	return &v1beta1.DecryptResponse{Plain: data}, nil
}
