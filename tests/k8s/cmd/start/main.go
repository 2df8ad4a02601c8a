// Command start measures how long nodeseald takes from exec to the first answered Encrypt, beside the part of it that
// the TPM took, with its sandbox and without, in turn. It never asserts.
//
// It works beside a running `nodeseal dev`, whose sealer and TPM it uses, on a copy of the state directory.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"nodeseal.internal/tests/k8s/internal/kms"
)

// opened is the log line that says how long the way to the TPM and back took.
var opened = regexp.MustCompile(`seal\.opened.*took_ms"?[=:](\d+)`)

func main() {
	log.SetFlags(0)
	binary := flag.String("nodeseald", "", "`path` of nodeseald")
	dev := flag.String("dev", "", "`folder` of a running nodeseal dev")
	runs := flag.Int("runs", 21, "starts of each kind")
	flag.Parse()

	confined, open := kind{name: "with the sandbox"}, kind{name: "without it", more: "[sandbox]\nmode = \"off\"\n"}
	for i := range *runs {
		// Another one begins each time: a drift of the machine's speed would else favour one.
		for _, k := range [][]*kind{{&confined, &open}, {&open, &confined}}[i%2] {
			if err := k.start(*binary, *dev); err != nil {
				log.Fatal(err)
			}
		}
	}
	for _, k := range []kind{confined, open} {
		fmt.Printf("%d starts %s, medians: exec to first Encrypt %.1f ms, TPM %.0f ms, everything else %.1f ms (at most %.1f)\n",
			*runs, k.name, median(k.totals), median(k.tpms), median(k.rest), slices.Max(k.rest))
	}
	// The TPM's share does not depend on it, and varies by more than what is looked for.
	var differences, ratios []float64
	for i := range *runs {
		differences = append(differences, confined.rest[i]-open.rest[i])
		ratios = append(ratios, confined.rest[i]/open.rest[i])
	}
	fmt.Printf("the sandbox: %+.1f ms at the start, %.2f of everything but the TPM (medians of the pairs)\n",
		median(differences), median(ratios))
}

// kind is a way to configure nodeseald, and what its starts took in milliseconds.
type kind struct {
	name, more         string
	totals, tpms, rest []float64
}

func (k *kind) start(binary, dev string) error {
	total, tpm, err := start(binary, dev, k.more)
	k.totals, k.tpms, k.rest = append(k.totals, total), append(k.tpms, tpm), append(k.rest, total-tpm)
	return err
}

func start(binary, dev, more string) (total, tpm float64, err error) {
	dir, err := os.MkdirTemp("", "nodeseal-start")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	config, err := prepare(dev, dir, more)
	if err != nil {
		return 0, 0, err
	}
	socket := filepath.Join(dir, "kms.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return 0, 0, err
	}
	file, err := listener.(*net.UnixListener).File()
	if err != nil {
		return 0, 0, err
	}
	connection, err := kms.Dial(socket)
	if err != nil {
		return 0, 0, err
	}
	defer connection.Close()
	client, err := kms.New("v2", connection)
	if err != nil {
		return 0, 0, err
	}

	var logged bytes.Buffer
	command := exec.Command(binary, "--config", config)
	command.Env = []string{"LISTEN_FDS=1"}
	command.ExtraFiles = []*os.File{file}
	command.Stderr = &logged
	began := time.Now()
	if err := command.Start(); err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = client.Encrypt(ctx, bytes.Repeat([]byte{7}, 32))
	total = float64(time.Since(began).Microseconds()) / 1000
	command.Process.Signal(syscall.SIGTERM)
	command.Wait()
	if err != nil {
		return 0, 0, fmt.Errorf("%w\n%s", err, logged.String())
	}
	match := opened.FindStringSubmatch(logged.String())
	if match == nil {
		return 0, 0, fmt.Errorf("no seal.opened in\n%s", logged.String())
	}
	tpm, err = strconv.ParseFloat(match[1], 64)
	return total, tpm, err
}

// prepare copies state and configuration of the running node into dir, with sockets of its own and more tables.
func prepare(dev, dir, more string) (config string, err error) {
	state := filepath.Join(dir, "state")
	if err := os.CopyFS(state, os.DirFS(filepath.Join(dev, "state"))); err != nil {
		return "", err
	}
	// CopyFS gives the modes of a fresh umask; nodeseald refuses a folder that others can enter.
	if err := os.Chmod(state, 0o700); err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(dev, "nodeseal.toml"))
	if err != nil {
		return "", err
	}
	replace := strings.NewReplacer(
		filepath.Join(dev, "kms.sock"), filepath.Join(dir, "kms.sock"),
		filepath.Join(dev, "control.sock"), filepath.Join(dir, "control.sock"),
		filepath.Join(dev, "state"), state,
	)
	config = filepath.Join(dir, "nodeseal.toml")
	return config, os.WriteFile(config, []byte(replace.Replace(string(text))+more), 0o600)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
