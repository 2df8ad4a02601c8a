package provider

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"nodeseal.internal/tests/k8s/internal/process"
)

const region = "eu-central-1"

// target is the prefix of the operations of KMS in X-Amz-Target.
const target = "TrentService."

// AWS starts a KMS that runs on this machine (moto, see tests/providers/aws) with one key.
func AWS(t testing.TB, name string) *Root {
	t.Helper()
	address := ""
	// Somebody else may take the port between the look at it and moto's bind: then moto ends, and another port is tried.
	for attempt := 0; address == ""; attempt++ {
		if attempt == 3 {
			t.Fatal("moto ends before it is ready")
		}
		address = startMoto(t, name)
	}

	kms := func(operation string, input any) []byte {
		body, err := json.Marshal(input)
		if err != nil {
			t.Fatal(err)
		}
		request, err := http.NewRequest(http.MethodPost, "http://"+address, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/x-amz-json-1.1")
		request.Header.Set("X-Amz-Target", target+operation)
		// moto takes region and service from it, and believes it.
		request.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=admin/20260101/"+region+
			"/kms/aws4_request, SignedHeaders=host, Signature=0")
		answer, err := send(request)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	var made struct {
		KeyMetadata struct{ Arn string }
	}
	answer := kms("CreateKey", map[string]any{"KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT"})
	if err := json.Unmarshal(answer, &made); err != nil {
		t.Fatal(err)
	}
	arn := made.KeyMetadata.Arn

	proxy := startProxy(t, "http://"+address, func(r *http.Request) string {
		return strings.TrimPrefix(r.Header.Get("X-Amz-Target"), target)
	})
	return &Root{
		Link: proxy,
		Name: name,
		table: fmt.Sprintf("kind = \"aws\"\nkey_arn = %q\nregion = %q\nendpoint = %q\n"+
			"auth = { method = \"static\", credential = %q }", arn, region, proxy.url(), name),
		secret: func() []byte { return []byte(`{"access_key_id": "AKIAEXAMPLE", "secret_access_key": "an example"}`) },
		rotate: func() { kms("RotateKeyOnDemand", map[string]any{"KeyId": arn}) },
		wrap:   "Encrypt",
		unwrap: "Decrypt",
	}
}

// startMoto gives the address of a moto that answers as moto does, or nothing if it has ended.
func startMoto(t testing.TB, name string) string {
	t.Helper()
	port := fmt.Sprint(process.Port(t))
	address := "127.0.0.1:" + port
	server := process.Start(t, process.Dir(t), name, python(t, "aws", "--host", "127.0.0.1", "--port", port))
	ended := false
	err := process.Until(60*time.Second, 50*time.Millisecond, func() error {
		select {
		case <-server.Done():
			ended = true
			return nil
		default:
		}
		answer, err := http.Get("http://" + address + "/moto-api/data.json")
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("moto answers %s", answer.Status)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("moto does not answer: %v", err)
	}
	if ended {
		return ""
	}
	return address
}
