package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
)

const (
	rootToken = "root-of-the-bench"
	keyName   = "kubernetes"
)

// vault is a client of a Vault in memory, without TLS as the nodes are.
type vault struct {
	url    string
	token  string
	client *http.Client
}

func newClient(url, token string) *vault {
	// A connection for each worker is kept, as the nodes keep theirs.
	return &vault{url, token, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}}}
}

// startVault gives a client that may use the keys of these mounts, as a node may: docs/providers/vault.md.
func (s *stage) startVault(binary string, mounts ...string) (*vault, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(s.dir, "vault.hcl")
	if err := os.WriteFile(config, []byte("disable_mlock = true\n"), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, "server", "-dev", "-dev-no-store-token", "-log-level=warn",
		"-dev-root-token-id="+rootToken, "-dev-listen-address="+address, "-config="+config)
	cmd.Env = []string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH")}
	if err := s.start("vault", cmd); err != nil {
		return nil, err
	}
	root := newClient("http://"+address, rootToken)
	ctx := context.Background()
	if err := until("Vault", func() error { return root.ask(ctx, "GET", "sys/health", nil, nil) }); err != nil {
		return nil, err
	}
	policy := ""
	for _, mount := range mounts {
		if err := root.ask(ctx, "POST", "sys/mounts/"+mount, fields{"type": "transit"}, nil); err != nil {
			return nil, err
		}
		if err := root.ask(ctx, "POST", mount+"/keys/"+keyName, fields{"type": "aes256-gcm96"}, nil); err != nil {
			return nil, err
		}
		for verb, may := range map[string]string{"keys": "read", "encrypt": "update", "decrypt": "update"} {
			policy += fmt.Sprintf("path \"%s/%s/%s\" { capabilities = [\"%s\"] }\n", mount, verb, keyName, may)
		}
	}
	if err := root.ask(ctx, "POST", "sys/policies/acl/bench", fields{"policy": policy}, nil); err != nil {
		return nil, err
	}
	var made struct {
		Auth struct {
			Token string `json:"client_token"`
		} `json:"auth"`
	}
	wanted := map[string]any{"policies": []string{"bench"}, "period": "24h", "no_parent": true}
	if err := root.ask(ctx, "POST", "auth/token/create", wanted, &made); err != nil {
		return nil, err
	}
	return newClient(root.url, made.Auth.Token), nil
}

type fields map[string]string

func (v *vault) ask(ctx context.Context, method, path string, body, into any) error {
	var sent io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, v.url+"/v1/"+path, sent)
	if err != nil {
		return err
	}
	request.Header.Set("X-Vault-Token", v.token)
	request.Header.Set("X-Vault-Request", "true")
	answer, err := v.client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	// Read to its end, or the connection would not be kept.
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s %s", method, path, answer.Status, text)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

// What a node sends has these lengths too: a key, and what its wrap is bound to.
var (
	plain = base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	bound = base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{9}, 21))
)

// encrypt is one bare call.
func (v *vault) encrypt(ctx context.Context, mount string) (string, error) {
	var answer struct {
		Data struct {
			Ciphertext string `json:"ciphertext"`
		} `json:"data"`
	}
	body := fields{"plaintext": plain, "key_version": "1", "associated_data": bound}
	err := v.ask(ctx, "POST", mount+"/encrypt/"+keyName, body, &answer)
	return answer.Data.Ciphertext, err
}

// decrypt is one bare call.
func (v *vault) decrypt(ctx context.Context, mount, text string) error {
	var answer struct {
		Data struct {
			Plaintext string `json:"plaintext"`
		} `json:"data"`
	}
	body := fields{"ciphertext": text, "associated_data": bound}
	if err := v.ask(ctx, "POST", mount+"/decrypt/"+keyName, body, &answer); err != nil {
		return err
	}
	if answer.Data.Plaintext != plain {
		return fmt.Errorf("the text opened to something else")
	}
	return nil
}

// sequence is what an Encrypt of mode direct asks for by design, in two round trips: a text, then whose key it is and beside that whether
// it opens.
func (v *vault) sequence(ctx context.Context, mount string) error {
	text, err := v.encrypt(ctx, mount)
	if err != nil {
		return err
	}
	opened := make(chan error, 1)
	go func() { opened <- v.decrypt(ctx, mount, text) }()
	var key struct {
		Data struct {
			Latest int `json:"latest_version"`
		} `json:"data"`
	}
	return errors.Join(v.ask(ctx, "GET", mount+"/keys/"+keyName, nil, &key), <-opened)
}
