package main

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"landfall/configs"
	"landfall/deploy/drill"
)

// document is a Markdown file of the tree.
type document struct {
	path, text string
	blocks     []block
}

// block is a fenced block of a document.
type block struct {
	language, text string
	line           int // of its first line
}

func documents(t *testing.T) []document {
	t.Helper()
	var out []document
	for p, text := range tree(t, func(p string) bool { return path.Ext(p) == ".md" }) {
		out = append(out, document{path: p, text: string(text), blocks: blocksOf(string(text))})
	}
	slices.SortFunc(out, func(a, b document) int { return strings.Compare(a.path, b.path) })
	return out
}

func blocksOf(text string) []block {
	var out []block
	var current *block
	for i, line := range strings.Split(text, "\n") {
		fence, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isFence && current == nil:
			current = &block{language: fence, line: i + 2}
		case isFence:
			out = append(out, *current)
			current = nil
		case current != nil:
			current.text += line + "\n"
		}
	}
	return out
}

// prose is a document without its fenced blocks.
func (d document) prose() string {
	text := d.text
	for _, b := range d.blocks {
		text = strings.Replace(text, b.text, "", 1)
	}
	return text
}

// TestDocumentedConfigsAreValid runs each yaml block through the parser. A block without services is a part of a file and
// gets the smallest services that there are.
func TestDocumentedConfigsAreValid(t *testing.T) {
	seen := 0
	for _, d := range documents(t) {
		for _, b := range d.blocks {
			if b.language != "yaml" {
				continue
			}
			seen++
			text := b.text
			if !regexp.MustCompile(`(?m)^services:`).MatchString(text) {
				text += "services: {web: {hosts: [\"*\"], pools: {any: {origins: [\"http://127.0.0.1:3000\"]}}}}\n"
			}
			env := func(string) (string, bool) { return "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", true }
			if _, err := configs.Parse(d.path, []byte(text), "", env); err != nil {
				t.Errorf("%s: the yaml block at line %d is no valid config (lines below count from there):\n%v", d.path, b.line, err)
			}
		}
	}
	if seen == 0 {
		t.Error("no document holds a yaml block")
	}
}

// TestDocumentedCommandsExist holds each command line in a sh block, and each in `backquotes`, against the real commands
// and their flags.
func TestDocumentedCommandsExist(t *testing.T) {
	seen := 0
	for _, d := range documents(t) {
		for _, b := range d.blocks {
			if b.language != "sh" {
				continue
			}
			for i, line := range strings.Split(strings.ReplaceAll(b.text, "\\\n", " "), "\n") {
				for _, words := range landfallCommands(line) {
					seen++
					if err := checkCommand(words, false); err != nil {
						t.Errorf("%s:%d: %s: %v", d.path, b.line+i, line, err)
					}
				}
			}
		}
		for _, span := range regexp.MustCompile("`(landfall [^`]+)`").FindAllStringSubmatch(d.prose(), -1) {
			seen++
			if err := checkCommand(shellWords(span[1])[1:], true); err != nil {
				t.Errorf("%s: `%s`: %v", d.path, span[1], err)
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d command lines were found in the documents", seen)
	}
}

// landfallCommands are the arguments of each landfall in a line of shell.
func landfallCommands(line string) [][]string {
	var out [][]string
	words := shellWords(line)
	for len(words) > 0 {
		end := slices.IndexFunc(words, func(w string) bool { return slices.Contains([]string{"|", "&&", "||", ";", "&"}, w) })
		command := words
		if end >= 0 {
			command, words = words[:end], words[end+1:]
		} else {
			words = nil
		}
		for len(command) > 0 && (command[0] == "$" || command[0] == "sudo" || command[0] == "time" || strings.Contains(command[0], "=")) {
			command = command[1:]
		}
		switch {
		case len(command) > 0 && path.Base(command[0]) == "landfall":
			out = append(out, command[1:])
		case len(command) > 2 && command[0] == "go" && command[1] == "run" && command[2] == "./cmd/landfall":
			out = append(out, command[3:])
		}
	}
	return out
}

// shellWords splits a line as a shell does, as far as documents need it: quotes, comments, redirections left out.
func shellWords(line string) []string {
	var words []string
	for _, m := range regexp.MustCompile(`(?:'[^']*'|"[^"]*"|[^\s'"])+`).FindAllString(line, -1) {
		if strings.HasPrefix(m, "#") {
			break
		}
		if strings.ContainsAny(m[:1], "<>") || strings.HasPrefix(m, "2>") {
			continue
		}
		words = append(words, strings.NewReplacer("'", "", `"`, "").Replace(m))
	}
	return words
}

// checkCommand runs a command line as far as it does nothing. A mention may leave out arguments and put options in
// brackets.
func checkCommand(words []string, mention bool) error {
	if mention {
		for i := range words {
			words[i] = strings.Trim(words[i], "[]…")
		}
		words = slices.DeleteFunc(words, func(w string) bool { return w == "" })
	}
	root := newRoot()
	cmd, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	if cmd == root && len(words) > 0 && !strings.HasPrefix(words[0], "-") && words[0] != "completion" && words[0] != "help" {
		return fmt.Errorf("there is no command %q", words[0])
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	args := cmd.Flags().Args()
	if mention && len(args) == 0 {
		return nil
	}
	if err := cmd.ValidateArgs(args); err != nil {
		return err
	}
	return checkArgs(cmd, args)
}

// checkArgs holds the arguments of commands that take names of ours; what is in capitals stands for something.
func checkArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 || strings.ToUpper(args[0]) == args[0] || strings.Contains(args[0], "|") {
		return nil
	}
	switch cmd.Name() {
	case "drain", "undrain":
		_, err := drainArgs(args, cmd.Flag("region").Value.String())
		return err
	case "drill":
		if !drill.Known(args[0]) {
			return fmt.Errorf("there is no drill %q", args[0])
		}
	}
	return nil
}

// TestLinksLead holds that what a document links to in the tree is there, headings too.
func TestLinksLead(t *testing.T) {
	all := documents(t)
	files := tree(t, func(string) bool { return true })
	for _, d := range all {
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(d.prose(), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := d.path
			if file != "" {
				target = path.Join(path.Dir(d.path), file)
			}
			isDir := false
			for p := range files {
				isDir = isDir || strings.HasPrefix(p, target+"/")
			}
			if _, ok := files[target]; !ok && !isDir {
				t.Errorf("%s links to %s, which is not there", d.path, m[1])
				continue
			}
			if anchor != "" && !slices.Contains(anchors(string(files[target])), anchor) {
				t.Errorf("%s links to %s, and %s has no such heading", d.path, m[1], target)
			}
		}
	}
}

// anchors are the link targets of a document's headings, as forges make them.
func anchors(text string) []string {
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		slug := strings.ToLower(strings.TrimSpace(m[1]))
		slug = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(slug, "")
		out = append(out, strings.ReplaceAll(slug, " ", "-"))
	}
	return out
}

// TestReadmeIsComplete holds that the README names each command, each package and each phase.
func TestReadmeIsComplete(t *testing.T) {
	readme := string(tree(t, func(p string) bool { return p == "README.md" })["README.md"])
	for _, c := range newRoot().Commands() {
		if !c.Hidden && c.Name() != "help" && !regexp.MustCompile("`"+c.Name()+"[ `]").MatchString(readme) {
			t.Errorf("README.md does not name the command `%s`: add a row to its table of commands", c.Name())
		}
	}
	for p := range floors {
		if dir := strings.TrimPrefix(p, modulePath+"/"); !strings.Contains(readme, "`"+dir+"`") {
			t.Errorf("README.md does not say what `%s` is for: add a row to its table of packages", dir)
		}
	}
	for _, phase := range []string{"accept", "head", "route", "access", "cache", "region", "pool", "attempt", "respond", "account"} {
		if !strings.Contains(readme, "| `"+phase+"` |") {
			t.Errorf("README.md does not explain the phase `%s`: add a row to its table of phases", phase)
		}
	}
}

// TestRunbooksHaveOneShape holds that at three in the morning everything is where it always is.
func TestRunbooksHaveOneShape(t *testing.T) {
	want := []string{"You see", "Look", "Do", "Afterwards"}
	found := 0
	for _, d := range documents(t) {
		if path.Dir(d.path) != "deploy/runbooks" || path.Base(d.path) == "README.md" {
			continue
		}
		found++
		var have []string
		for _, m := range regexp.MustCompile(`(?m)^## (.*)$`).FindAllStringSubmatch(d.prose(), -1) {
			have = append(have, m[1])
		}
		if !slices.Equal(have, want) {
			t.Errorf("%s has the sections %q, want %q", d.path, have, want)
		}
		if !slices.ContainsFunc(d.blocks, func(b block) bool { return b.language == "sh" && strings.Contains(b.text, "landfall ") }) {
			t.Errorf("%s has no command to copy: put one into a sh block", d.path)
		}
	}
	if found == 0 {
		t.Error("deploy/runbooks holds no runbook")
	}
}
