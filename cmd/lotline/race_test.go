//go:build race

package main

// raceDetector is on in this build, the processes that the tests start included.
const raceDetector = true
