// Command start measures how long nodeseald takes from exec to the first answered Encrypt, beside the part of it that
// the TPM took. It never asserts.
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
	runs := flag.Int("runs", 11, "starts to measure")
	flag.Parse()

	var totals, tpms, rest []float64
	for range *runs {
		total, tpm, err := start(*binary, *dev)
		if err != nil {
			log.Fatal(err)
		}
		totals, tpms, rest = append(totals, total), append(tpms, tpm), append(rest, total-tpm)
	}
	fmt.Printf("%d starts, medians: exec to first Encrypt %.1f ms, TPM %.0f ms, everything else %.1f ms (at most %.1f)\n",
		*runs, median(totals), median(tpms), median(rest), slices.Max(rest))
}

func start(binary, dev string) (total, tpm float64, err error) {
	dir, err := os.MkdirTemp("", "nodeseal-start")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	config, err := prepare(dev, dir)
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

// prepare copies state and configuration of the running node into dir, with sockets of its own.
func prepare(dev, dir string) (config string, err error) {
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
	return config, os.WriteFile(config, []byte(replace.Replace(string(text))), 0o600)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
