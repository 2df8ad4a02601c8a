package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"

	"nodeseal.internal/tests/k8s/internal/kms"
)

// provider is a Vault key as a node is told of it.
type provider struct {
	name, url, mount string
	more             string
}

// node is a running `nodeseal dev`.
type node struct {
	kms.Client
	name string
	pid  int // of nodeseald
}

const (
	modeDirect = "[local_kek]\nenabled = false\n"
	sandboxOff = "[sandbox]\nmode = \"off\"\n"
)

// startNode makes a node with these providers. rules stand before their tables.
func (s *stage) startNode(name, token, rules string, providers ...provider) (*node, error) {
	dir, fragment := filepath.Join(s.dir, name), filepath.Join(s.dir, name+".toml")
	text := rules
	for _, p := range providers {
		text += fmt.Sprintf("[[provider]]\nname = %q\nkind = \"vault\"\naddress = %q\nmount = %q\nkey = %q\n%s\n"+
			"auth = { method = \"token\", credential = \"login\" }\n", p.name, p.url, p.mount, keyName, p.more)
	}
	if err := os.WriteFile(fragment, []byte(text), 0o600); err != nil {
		return nil, err
	}
	tool := filepath.Join(s.bin, "nodeseal")
	output, input, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(tool, "dev", "--dir", dir, "--config", fragment, "--json")
	cmd.Stdout = input
	err = s.start(name, cmd)
	input.Close()
	if err != nil {
		return nil, err
	}
	// A fresh node waits for its providers, and they for their login.
	if len(providers) > 0 {
		err := until("the login of "+name, func() error {
			for _, needed := range []string{"control.sock", "state/current"} {
				if _, err := os.Stat(filepath.Join(dir, needed)); err != nil {
					return err
				}
			}
			seal := exec.Command(tool, "--config", filepath.Join(dir, "nodeseal.toml"), "credentials", "seal", "login")
			seal.Stdin = strings.NewReader(token)
			if out, err := seal.CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var event struct {
		Socket string `json:"socket"`
		PIDs   struct {
			Nodeseald int `json:"nodeseald"`
		} `json:"pids"`
	}
	if err := firstLine(output, &event); err != nil {
		said, _ := os.ReadFile(s.log(name))
		return nil, fmt.Errorf("node %s: %w\n%s", name, err, said)
	}
	connection, err := kms.Dial(event.Socket, grpc.WithAuthority("localhost"))
	if err != nil {
		return nil, err
	}
	client, err := kms.New("v2", connection)
	return &node{client, name, event.PIDs.Nodeseald}, err
}

// firstLine waits for `ready`. The rest of the output is read to its end: a writer must never find it full or closed.
func firstLine(output *os.File, into any) error {
	got := make(chan error, 1)
	go func() {
		defer output.Close()
		lines := bufio.NewScanner(output)
		if lines.Scan() {
			got <- json.Unmarshal(lines.Bytes(), into)
		} else {
			got <- errors.New("it ended before it was ready")
		}
		io.Copy(io.Discard, output)
	}()
	select {
	case err := <-got:
		return err
	case <-time.After(ready):
		return fmt.Errorf("not ready within %v", ready)
	}
}

// texts makes some of different keys: those who ask for one key at the same time would share an answer.
func (n *node) texts(count int) ([]kms.Text, error) {
	var texts []kms.Text
	for range count {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		text, err := n.Encrypt(ctx, seed)
		cancel()
		if err != nil {
			return nil, fmt.Errorf("node %s, Encrypt: %w", n.name, err)
		}
		texts = append(texts, text)
	}
	return texts, nil
}
