package configs

import (
	"os"
	"testing"
)

func TestMinimal(t *testing.T) {
	data, err := os.ReadFile("examples/minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse("minimal.yaml", data, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", *c)
	t.Logf("%+v", *c.Services["web"])
}
