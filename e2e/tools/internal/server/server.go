// Package server is an HTTP server whose page costs processor time, so that a slow server is really slow.
package server

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// DefaultIterations of hashing take about two milliseconds on one full core with SHA instructions.
const DefaultIterations = 24_000

// maxIterations bounds what one request may ask for.
const maxIterations = 1000 * DefaultIterations

// Page is what the server answers.
type Page struct {
	Backend      string  `json:"backend"`
	Node         string  `json:"node,omitempty"`
	Client       string  `json:"client"`
	Iterations   int     `json:"iterations"`
	Milliseconds float64 `json:"milliseconds"`
	Digest       string  `json:"digest"`
}

// Server answers on behalf of one backend.
type Server struct {
	Backend    string
	Node       string
	Iterations int
}

// Handler returns the server's routes.
func (s Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.page)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Backend", s.Backend)
		fmt.Fprintln(w, "ok")
	})
	return mux
}

func (s Server) page(w http.ResponseWriter, r *http.Request) {
	iterations := s.Iterations
	if asked := r.URL.Query().Get("iterations"); asked != "" {
		parsed, err := strconv.Atoi(asked)
		if err != nil || parsed < 0 || parsed > maxIterations {
			http.Error(w, fmt.Sprintf("iterations: %q is not a number from 0 to %d", asked, maxIterations), http.StatusBadRequest)
			return
		}
		iterations = parsed
	}
	began := time.Now()
	digest := Work(iterations)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Backend", s.Backend)
	page := Page{
		Backend:      s.Backend,
		Node:         s.Node,
		Client:       r.RemoteAddr,
		Iterations:   iterations,
		Milliseconds: float64(time.Since(began).Microseconds()) / 1000,
		Digest:       digest,
	}
	// The client may be gone; its loss is its own.
	_ = json.NewEncoder(w).Encode(page)
}

// Work hashes a block over and over and returns what comes out.
func Work(iterations int) string {
	block := sha256.Sum256([]byte("penstock"))
	for range iterations {
		block = sha256.Sum256(block[:])
	}
	return hex.EncodeToString(block[:8])
}
