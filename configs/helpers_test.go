package configs

import (
	"bytes"
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const testKey = "bGFuZGZhbGwtbWVzaC1rZXktb2YtMzItYnl0ZXMhISE="

// environment is what the configs of the tests find in ${...}.
func environment(name string) (string, bool) {
	value, ok := map[string]string{
		"LANDFALL_MESH_KEY": testKey,
		"LANDFALL_TSIG":     testKey,
		"SECRET":            "hunter2-never-print",
		"NUMBER":            "7",
		"EMPTY":             "",
		"WITH_NEWLINE":      "web\n",
		"STRUCTURE":         "[a, b]: {c: d}",
		"REGION":            "eu-west",
	}[name]
	return value, ok
}

func mustParse(t testing.TB, text string) *Config {
	t.Helper()
	c, err := Parse("test.yaml", []byte(text), "", environment)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// golden holds got equal to a file, or rewrites the file with -update.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (run the test with -update and read what it writes)", err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("%s differs; if the new text is right, run the test with -update\n--- want\n%s\n--- got\n%s", path, want, got)
	}
}

// service is a config with one service whose keys are those given, indented by four.
func service(keys string) string {
	return "services:\n  web:\n    hosts: [\"*\"]\n    pools: {any: {origins: [\"http://127.0.0.1:3000\"]}}\n" + keys
}
