package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"nodeseal.internal/tests/k8s/internal/cluster"
	"nodeseal.internal/tests/k8s/internal/load"
)

// Scan is `nodeseal etcd scan` of so many objects beside a bare range read of the same etcd.
type Scan struct {
	Objects  int     `json:"objects"`
	Rate     float64 `json:"objects_per_s"`
	Bare     float64 `json:"objects_per_s_of_a_bare_range_read"`
	Snapshot float64 `json:"objects_per_s_of_a_snapshot"`
	Ratio    float64 `json:"ratio"`
	PeakRSS  int64   `json:"peak_rss_kib"`
}

// valueBytes is a Secret of a few fields under KMS v2, about.
const valueBytes = 1000

// scans reads objects that are encrypted in no way that matters: `--open none` looks at what stands in front.
func (b *bench) scans(*vault) (err error) {
	if b.servers == "" || b.objects == 0 {
		return nil
	}
	t := &once{}
	defer func() { err = t.end(recover(), err) }()
	etcd := cluster.StartEtcd(t)
	filling := make([]byte, valueBytes)
	if _, err := rand.Read(filling); err != nil {
		return err
	}
	value := "k8s:enc:kms:v2:" + providerName + ":" + string(filling)
	etcd.PutMany("/registry/secrets/many/secret-", b.objects, value)
	row := Scan{Objects: b.objects}
	var rates, bares []float64
	for range min(b.rounds, wakeRounds) {
		begin := time.Now()
		if count := etcd.CountByReading("/registry/"); count != b.objects {
			return fmt.Errorf("the bare read found %d of %d objects", count, b.objects)
		}
		bares = append(bares, float64(b.objects)/time.Since(begin).Seconds())
		rate, peak, err := b.scan("--endpoints", etcd.URL)
		if err != nil {
			return err
		}
		rates, row.PeakRSS = append(rates, rate), max(row.PeakRSS, peak)
	}
	file := filepath.Join(b.dir, "snapshot.db")
	etcd.Snapshot(file)
	var peak int64
	if row.Snapshot, peak, err = b.scan("--snapshot", file); err != nil {
		return err
	}
	row.PeakRSS = max(row.PeakRSS, peak)
	row.Rate, row.Bare = load.Median(rates), load.Median(bares)
	row.Ratio = row.Rate / row.Bare
	b.report.Scans = append(b.report.Scans, row)
	return nil
}

func (b *bench) scan(source ...string) (rate float64, peak int64, err error) {
	arguments := append([]string{"etcd", "scan", "--open", "none", "--json", "--config", "/dev/null"}, source...)
	cmd := exec.Command(filepath.Join(b.bin, "nodeseal"), arguments...)
	begin := time.Now()
	out, err := cmd.Output()
	took := time.Since(begin)
	// 1: findings, since what is in the objects is noise.
	if exit, ok := err.(*exec.ExitError); err != nil && (!ok || exit.ExitCode() != 1) {
		return 0, 0, err
	}
	var scan struct {
		Objects int `json:"objects"`
	}
	if err := json.Unmarshal(out, &scan); err != nil {
		return 0, 0, err
	}
	if scan.Objects != b.objects {
		return 0, 0, fmt.Errorf("the scan counted %d of %d objects", scan.Objects, b.objects)
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return float64(scan.Objects) / took.Seconds(), usage.Maxrss, nil
}
