package wire

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v2 "k8s.io/kms/apis/v2"

	"nodeseal.internal/tests/k8s/internal/kms"
	"nodeseal.internal/tests/k8s/internal/product"
)

// path matches an absolute path in a sentence.
var path = regexp.MustCompile(`(^|[\s"'(=:])/[\w.-]+`)

// refused checks that a call failed with one of the codes, and that its text gives nothing away.
func refused(t testing.TB, what string, err error, want ...codes.Code) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: succeeded, want %v", what, want)
		return
	}
	s := status.Convert(err)
	if !slices.Contains(want, s.Code()) {
		t.Errorf("%s: %v (%q), want %v", what, s.Code(), s.Message(), want)
	}
	switch text := s.Message(); {
	case text == "":
		t.Errorf("%s: the error has no text", what)
	case len(text) > 400:
		t.Errorf("%s: the error's text has %d bytes, the limit is 400", what, len(text))
	case strings.Contains(text, string(seed)):
		t.Errorf("%s: the error's text holds the plaintext: %q", what, text)
	case path.MatchString(text):
		t.Errorf("%s: the error's text holds a path: %q", what, text)
	}
}

// start gives a text of each version beside the client that made it.
func start(t *testing.T) (clients map[string]kms.Client, texts map[string]kms.Text) {
	t.Helper()
	connection := connect(t, product.Start(t))
	clients, texts = make(map[string]kms.Client), make(map[string]kms.Text)
	for _, api := range apis {
		c := client(t, api, connection)
		text, err := c.Encrypt(within(t), seed)
		if err != nil {
			t.Fatal(err)
		}
		// What follows is only worth something when the untouched text opens.
		if plain, err := c.Decrypt(within(t), text); err != nil || !bytes.Equal(plain, seed) {
			t.Fatalf("%s: the untouched text does not decrypt: %v", api, err)
		}
		clients[api], texts[api] = c, text
	}
	return clients, texts
}

func TestEveryFlippedBitOfACiphertextIsRefused(t *testing.T) {
	clients, texts := start(t)
	ctx := within(t)
	for _, api := range apis {
		for bit := range len(texts[api].Cipher) * 8 {
			text := texts[api].Clone()
			text.Cipher[bit/8] ^= 1 << (bit % 8)
			_, err := clients[api].Decrypt(ctx, text)
			refused(t, fmt.Sprintf("%s bit %d", api, bit), err, codes.InvalidArgument, codes.NotFound)
		}
	}
}

func TestACutOrLengthenedCiphertextIsRefused(t *testing.T) {
	clients, texts := start(t)
	ctx := within(t)
	for _, api := range apis {
		whole := texts[api].Cipher
		for n := range len(whole) {
			text := texts[api].Clone()
			text.Cipher = whole[:n]
			_, err := clients[api].Decrypt(ctx, text)
			refused(t, fmt.Sprintf("%s cut to %d bytes", api, n), err, codes.InvalidArgument, codes.NotFound)
		}
		text := texts[api].Clone()
		text.Cipher = append(text.Cipher, 0)
		_, err := clients[api].Decrypt(ctx, text)
		refused(t, api+" with a byte more", err, codes.InvalidArgument, codes.NotFound)
	}
}

func TestEveryFlippedBitOfAnAnnotationIsRefused(t *testing.T) {
	clients, texts := start(t)
	ctx := within(t)
	annotations := texts["v2"].Annotations
	for name, value := range annotations {
		for bit := range len(value) * 8 {
			text := texts["v2"].Clone()
			text.Annotations[name][bit/8] ^= 1 << (bit % 8)
			_, err := clients["v2"].Decrypt(ctx, text)
			refused(t, fmt.Sprintf("annotation %s bit %d", name, bit), err, codes.InvalidArgument, codes.NotFound)
		}
		text := texts["v2"].Clone()
		delete(text.Annotations, name)
		_, err := clients["v2"].Decrypt(ctx, text)
		refused(t, "without annotation "+name, err, codes.InvalidArgument, codes.NotFound)
	}
	// A node without providers writes none: then this is what remains to be refused.
	text := texts["v2"].Clone()
	if text.Annotations == nil {
		text.Annotations = make(map[string][]byte)
	}
	text.Annotations["other.wrap.nodeseal.internal"] = []byte("added by somebody")
	_, err := clients["v2"].Decrypt(ctx, text)
	refused(t, "an annotation added under our name", err, codes.InvalidArgument, codes.NotFound)
}

func TestATextOfOneVersionIsRefusedByTheOther(t *testing.T) {
	clients, texts := start(t)
	crossed := texts["v1"].Clone()
	crossed.KeyID = texts["v2"].KeyID
	_, err := clients["v2"].Decrypt(within(t), crossed)
	refused(t, "v1 text given to v2", err, codes.InvalidArgument)
	_, err = clients["v1"].Decrypt(within(t), kms.Text{Cipher: texts["v2"].Cipher})
	refused(t, "v2 text given to v1", err, codes.InvalidArgument)
}

func TestAWrongKeyIDIsRefused(t *testing.T) {
	clients, texts := start(t)
	for what, keyID := range map[string]string{
		"empty":          "",
		"another":        "ns1-00000000000000000000000000000000",
		"one more byte":  texts["v2"].KeyID + "0",
		"one byte less":  texts["v2"].KeyID[:len(texts["v2"].KeyID)-1],
		"over the limit": strings.Repeat("k", maxKeyID+1),
	} {
		text := texts["v2"].Clone()
		text.KeyID = keyID
		_, err := clients["v2"].Decrypt(within(t), text)
		refused(t, "key_id "+what, err, codes.InvalidArgument)
	}
}

func TestARequestWithoutUIDIsRefused(t *testing.T) {
	raw := v2.NewKeyManagementServiceClient(connect(t, product.Start(t)))
	_, err := raw.Encrypt(within(t), &v2.EncryptRequest{Plaintext: seed})
	refused(t, "Encrypt", err, codes.InvalidArgument)
	text, err := raw.Encrypt(within(t), &v2.EncryptRequest{Plaintext: seed, Uid: "a"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = raw.Decrypt(within(t), &v2.DecryptRequest{Ciphertext: text.Ciphertext, KeyId: text.KeyId, Annotations: text.Annotations})
	refused(t, "Decrypt", err, codes.InvalidArgument)
}

func TestGarbageIsRefused(t *testing.T) {
	clients, texts := start(t)
	for _, api := range apis {
		for what, cipher := range map[string][]byte{
			"nothing": nil, "a byte": {0}, "zeroes": make([]byte, 100), "a kilobyte": bytes.Repeat([]byte{0xff}, 1024),
			"more than the contract allows": bytes.Repeat([]byte{'x'}, 66_000),
		} {
			text := texts[api].Clone()
			text.Cipher = cipher
			_, err := clients[api].Decrypt(within(t), text)
			refused(t, api+" ciphertext of "+what, err, codes.InvalidArgument, codes.NotFound)
		}
	}
}

func TestATextOfAnotherNodeIsRefused(t *testing.T) {
	_, foreign := start(t)
	clients, own := start(t)
	for _, api := range apis {
		_, err := clients[api].Decrypt(within(t), foreign[api])
		refused(t, api+" text of another node", err, codes.InvalidArgument, codes.NotFound)
	}
	disguised := foreign["v2"].Clone()
	disguised.KeyID = own["v2"].KeyID
	_, err := clients["v2"].Decrypt(within(t), disguised)
	refused(t, "text of another node under this node's key_id", err, codes.InvalidArgument, codes.NotFound)
}

func TestAMessageOver128KiBIsRefusedAndTheConnectionGoesOn(t *testing.T) {
	connection := connect(t, product.Start(t))
	for _, api := range apis {
		c := client(t, api, connection)
		for _, size := range []int{128*1024 + 1, 1 << 20, 8 << 20} {
			plain := bytes.Repeat(seed, size/len(seed)+1)[:size]
			_, err := c.Encrypt(within(t), plain)
			refused(t, fmt.Sprintf("%s Encrypt of %d bytes", api, size), err, codes.ResourceExhausted, codes.InvalidArgument)
			_, err = c.Decrypt(within(t), kms.Text{Cipher: plain, KeyID: "k"})
			refused(t, fmt.Sprintf("%s Decrypt of %d bytes", api, size), err, codes.ResourceExhausted, codes.InvalidArgument)
		}
		if err := roundTrip(within(t), c); err != nil {
			t.Errorf("%s: after the long messages a usual one fails: %v", api, err)
		}
	}
}

func TestAnUnknownMethodIsUnimplemented(t *testing.T) {
	connection := connect(t, product.Start(t))
	for _, method := range []string{"/v2.KeyManagementService/Destroy", "/v3.KeyManagementService/Status"} {
		err := connection.Invoke(within(t), method, &v2.StatusRequest{}, &v2.StatusResponse{})
		if code := status.Code(err); code != codes.Unimplemented {
			t.Errorf("%s: %v, want %v", method, code, codes.Unimplemented)
		}
	}
}
