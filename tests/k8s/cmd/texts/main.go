// Command texts encrypts through a KMS plugin and prints each text that it was given as a line of JSON, or reads such lines and
// decrypts them. What is printed was acknowledged: whatever happens to the plugin afterwards, it must open.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/grpc"

	"nodeseal.internal/tests/k8s/internal/kms"
)

type line struct {
	Plain []byte
	kms.Text
}

func main() {
	socket := flag.String("socket", "/run/nodeseal/kms.sock", "path of the plugin's unix `socket`")
	count := flag.Int("count", 0, "how many texts to write; 0: for ever")
	every := flag.Duration("every", 20*time.Millisecond, "pause between two writes")
	read := flag.Bool("read", false, "decrypt what standard input has")
	flag.Parse()
	connection, err := kms.Dial(*socket, grpc.WithAuthority("localhost"))
	if err == nil {
		var client kms.Client
		if client, err = kms.New("v2", connection); err == nil && *read {
			err = check(client, os.Stdin)
		} else if err == nil {
			err = write(client, *count, *every)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// limit is kube-apiserver's own for a call.
const limit = 3 * time.Second

func write(client kms.Client, count int, every time.Duration) error {
	out := json.NewEncoder(os.Stdout)
	for n := 0; count == 0 || n < count; n++ {
		plain := binary.BigEndian.AppendUint64(bytes.Repeat([]byte{0x5a}, 24), uint64(n))
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		text, err := client.Encrypt(ctx, plain)
		cancel()
		if err != nil {
			return fmt.Errorf("text %d: %w", n, err)
		}
		if err := out.Encode(line{plain, text}); err != nil {
			return err
		}
		time.Sleep(every)
	}
	return nil
}

func check(client kms.Client, from io.Reader) error {
	opened := 0
	lines := bufio.NewReader(from)
	for {
		text, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			// The power went in the middle of the last line.
			fmt.Println(opened)
			return nil
		}
		var stored line
		if err := errors.Join(err, json.Unmarshal(text, &stored)); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		plain, err := client.Decrypt(ctx, stored.Text)
		cancel()
		if err != nil || !bytes.Equal(plain, stored.Plain) {
			return fmt.Errorf("text %d of key_id %s does not open: %w", opened, stored.KeyID, err)
		}
		opened++
	}
}
