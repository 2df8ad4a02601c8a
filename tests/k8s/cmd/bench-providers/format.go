package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strings"

	"nodeseal.internal/tests/k8s/internal/kms"
)

// Texts of nodes that there are not, by docs/formats.md ("Wrap", "Envelope"): a thousand nodes or rotations would take hours.

const (
	clusterID  = "dev" // of each `nodeseal dev`
	checkName  = "check.kek.nodeseal.internal"
	wrapSuffix = ".wrap.nodeseal.internal"
	kekIDBytes = 16
	keyBytes   = 32
	nonceBytes = 12
)

// like is what texts of one key at one provider have in common.
type like struct {
	keyID, name string
	wrap        []byte // up to its text
}

// readLike takes it from a text that a node has made.
func readLike(made kms.Text) (like, error) {
	for name, value := range made.Annotations {
		if !strings.HasSuffix(name, wrapSuffix) {
			continue
		}
		// Magic, version and kind, then identity and version of the key.
		at := len("NSWR") + 2
		for range 2 {
			if len(value) < at+2 {
				return like{}, errors.New("a wrap is cut short")
			}
			at += 2 + int(binary.BigEndian.Uint16(value[at:]))
		}
		if len(value) < at {
			return like{}, errors.New("a wrap is cut short")
		}
		return like{made.KeyID, name, value[:at:at]}, nil
	}
	return like{}, errors.New("a text of mode rooted has no wrap")
}

func bytes16(value []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(value))), value...)
}

// text encrypts a seed in KMS v2.
func (l like) text(seed, id, key, nonce, wrapped []byte) (kms.Text, error) {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("nodeseal kek check v1\x00"))
	mac.Write(id)
	annotations := map[string][]byte{
		l.name:    append(l.wrap, bytes16(wrapped)...),
		checkName: mac.Sum(nil)[:16],
	}
	wraps := binary.BigEndian.AppendUint16(nil, uint16(len(annotations)))
	for _, name := range slices.Sorted(maps.Keys(annotations)) {
		wraps = append(append(wraps, bytes16([]byte(name))...), bytes16(annotations[name])...)
	}
	head := append([]byte("NSL\x01\x02\x01"), id...)
	bound := append(bytes16([]byte(clusterID)), bytes16([]byte(l.keyID))...)
	check := sha256.Sum256(bytes.Join([][]byte{[]byte("nodeseal check v1\x00"), bound, head}, nil))
	digest := sha256.Sum256(wraps)
	aad := bytes.Join([][]byte{[]byte("nodeseal aad v1\x00"), bound, head, digest[:]}, nil)
	block, err := aes.NewCipher(key)
	if err != nil {
		return kms.Text{}, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return kms.Text{}, err
	}
	opening := bytes.Join([][]byte{head, check[:8], nonce}, nil)
	return kms.Text{Cipher: gcm.Seal(opening, nonce, seed, aad), KeyID: l.keyID, Annotations: annotations}, nil
}
