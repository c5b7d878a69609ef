package server

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
)

func get(t *testing.T, path string) *httptest.ResponseRecorder {
	t.Helper()
	answer := httptest.NewRecorder()
	Server{Backend: "web-1", Iterations: 3}.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
	return answer
}

func TestPageNamesItsBackendAndDoesTheWork(t *testing.T) {
	answer := get(t, "/")
	var page Page
	if err := json.Unmarshal(answer.Body.Bytes(), &page); err != nil {
		t.Fatal(err)
	}
	block := []byte("penstock")
	for range 4 {
		sum := sha256.Sum256(block)
		block = sum[:]
	}
	if page.Backend != "web-1" || answer.Header().Get("X-Backend") != "web-1" || page.Iterations != 3 {
		t.Errorf("answered %+v with headers %v", page, answer.Header())
	}
	if want := hex.EncodeToString(block[:8]); page.Digest != want {
		t.Errorf("digest %s, want %s", page.Digest, want)
	}
}

func TestRequestMayChooseItsCost(t *testing.T) {
	var page Page
	if err := json.Unmarshal(get(t, "/?iterations=0").Body.Bytes(), &page); err != nil || page.Iterations != 0 {
		t.Errorf("answered %+v, %v", page, err)
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	for path, want := range map[string]int{
		"/?iterations=-1":         http.StatusBadRequest,
		"/?iterations=many":       http.StatusBadRequest,
		"/?iterations=3000000000": http.StatusBadRequest,
		"/elsewhere":              http.StatusNotFound,
		"/healthz":                http.StatusOK,
	} {
		if got := get(t, path).Code; got != want {
			t.Errorf("%s: status %d, want %d", path, got, want)
		}
	}
}

func BenchmarkPage(b *testing.B) {
	for b.Loop() {
		Work(DefaultIterations)
	}
}
