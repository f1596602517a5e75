package configs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBadConfigs holds the full text that a person gets for each config in testdata/bad to the .txt beside it. Read what
// -update writes before you commit it: would it help you at three in the morning?
func TestBadConfigs(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 100 {
		t.Fatalf("found %d bad configs, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Parse(name+".yaml", data, "", environment)
			if err == nil || c != nil {
				t.Fatal("the config was accepted")
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "aHVudGVyM") {
				t.Errorf("the error prints a secret: %v", err)
			}
			var all Errors
			if !errors.As(err, &all) || len(all) == 0 {
				t.Fatalf("the error is a %T", err)
			}
			for i, e := range all {
				if e.File != name+".yaml" || e.Msg == "" || i > 0 && e.Line < all[i-1].Line {
					t.Errorf("fault %d is out of order or incomplete: %+v", i, e)
				}
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".txt", []byte(err.Error()+"\n"))
		})
	}
}
