// Programs for end-to-end tests and demonstrations: a server to balance, a load generator, and a pod's first process.
module penstock.dev/e2e/tools

go 1.26.0

require github.com/HdrHistogram/hdrhistogram-go v1.1.2
