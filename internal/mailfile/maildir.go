package mailfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Folder is one folder of a Maildir.
type Folder struct {
	Name string // "INBOX", "Archive/2024"
	Dir  string // holds cur, new and tmp
}

// MaildirFolders lists the folders below root in order of name. A root without cur or new is no Maildir.
func MaildirFolders(root string) ([]Folder, error) {
	if !isMaildir(root) {
		return nil, fmt.Errorf("read maildir %s: no cur and new in it", root)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("read maildir: %w", err)
	}
	out := []Folder{{"INBOX", root}}
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		// Entries that are links are passed over: they could lead anywhere.
		if name, ok := decodeFolder(e.Name()); ok && e.IsDir() && isMaildir(dir) && !strings.EqualFold(name, "INBOX") {
			out = append(out, Folder{name, dir})
		}
	}
	slices.SortFunc(out[1:], func(a, b Folder) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func isMaildir(dir string) bool {
	for _, sub := range []string{"cur", "new"} {
		if fi, err := os.Lstat(filepath.Join(dir, sub)); err != nil || !fi.IsDir() {
			return false
		}
	}
	return true
}

// MaildirFile is one message of a folder.
type MaildirFile struct {
	Unique  string // the file's name up to the flags: stays while the flags change
	Path    string
	Message Message
}

// MaildirFiles lists the messages of a folder, in order of Unique: that is of arrival, as names begin with the time.
func MaildirFiles(dir string) ([]MaildirFile, error) {
	keywords, err := readKeywords(filepath.Join(dir, keywordFile))
	if err != nil {
		return nil, err
	}
	var out []MaildirFile
	for _, sub := range []string{"new", "cur"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			return nil, fmt.Errorf("read maildir: %w", err)
		}
		for _, e := range entries {
			if !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			unique, info, _ := strings.Cut(e.Name(), ":2,")
			out = append(out, MaildirFile{
				Unique:  unique,
				Path:    filepath.Join(dir, sub, e.Name()),
				Message: Message{Flags: parseInfo(info, keywords)},
			})
		}
	}
	slices.SortFunc(out, func(a, b MaildirFile) int { return strings.Compare(a.Unique, b.Unique) })
	return out, nil
}

// Copy copies the message to w with CRLF line ends, and tells its date of delivery: the time of the file, by convention.
func (f MaildirFile) Copy(w io.Writer) (Message, error) {
	m := f.Message
	file, err := os.Open(f.Path)
	if err != nil {
		return m, fmt.Errorf("read maildir: %w", err)
	}
	defer file.Close()
	fi, err := file.Stat()
	if err != nil {
		return m, fmt.Errorf("read maildir: %w", err)
	}
	m.Date = fi.ModTime().UTC()
	out := crlfWriter{w: w}
	buf := make([]byte, 64<<10)
	for {
		n, err := file.Read(buf)
		if werr := out.write(buf[:n]); werr != nil {
			return m, werr
		}
		if errors.Is(err, io.EOF) {
			return m, out.end()
		}
		if err != nil {
			return m, fmt.Errorf("read maildir: %w", err)
		}
	}
}

// keywordFile is where Dovecot keeps which letter stands for which keyword in a folder.
const keywordFile = "dovecot-keywords"

// readKeywords reads lines "0 $Forwarded": letter a is number 0. A file that is missing means no keywords.
func readKeywords(file string) (map[rune]string, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read maildir: %w", err)
	}
	defer f.Close()
	out := map[rune]string{}
	lines := bufio.NewScanner(io.LimitReader(f, 64<<10))
	for lines.Scan() {
		number, word, ok := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		n, err := strconv.Atoi(number)
		if ok && err == nil && n >= 0 && n < 26 && IsKeyword(word) {
			out[rune('a'+n)] = word
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read maildir %s: %w", file, err)
	}
	return out, nil
}

func parseInfo(info string, keywords map[rune]string) Flags {
	var f Flags
	for _, c := range info {
		switch c {
		case 'S':
			f.Seen = true
		case 'R':
			f.Answered = true
		case 'F':
			f.Flagged = true
		case 'T':
			f.Deleted = true
		case 'D':
			f.Draft = true
		case 'P': // passed: resent, forwarded or bounced
			f.addKeyword("$Forwarded")
		default:
			f.addKeyword(keywords[c])
		}
	}
	return f
}

func (f *Flags) addKeyword(k string) {
	if IsKeyword(k) && len(f.Keywords) < maxKeywords && !slices.Contains(f.Keywords, k) {
		f.Keywords = append(f.Keywords, k)
	}
}

// MaildirWriter writes messages into one folder.
type MaildirWriter struct {
	dir      string
	keywords []string          // by letter
	changed  bool              // keywords has words that the file lacks
	names    map[string]string // file names in cur by their unique part
	unsynced []string          // files written since the last Sync
}

// NewMaildirFolder makes the folder of the mailbox name below root when it isn't there, and writes into it.
func NewMaildirFolder(root, name string) (*MaildirWriter, error) {
	dir := root
	if name != "INBOX" {
		dir = filepath.Join(root, encodeFolder(name))
	}
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("write maildir: %w", err)
		}
	}
	w := &MaildirWriter{dir: dir, names: map[string]string{}}
	present, err := os.ReadDir(filepath.Join(dir, "cur"))
	if err != nil {
		return nil, fmt.Errorf("write maildir: %w", err)
	}
	for _, e := range present {
		unique, _, _ := strings.Cut(e.Name(), ":2,")
		w.names[unique] = e.Name()
	}
	if dir != root {
		// The mark by which delivery programs know a folder below another (Maildir++).
		if err := os.WriteFile(filepath.Join(dir, "maildirfolder"), nil, 0o600); err != nil {
			return nil, fmt.Errorf("write maildir: %w", err)
		}
	}
	known, err := readKeywords(filepath.Join(dir, keywordFile))
	if err != nil {
		return nil, err
	}
	for i := range 26 {
		word, ok := known[rune('a'+i)]
		if !ok {
			break
		}
		w.keywords = append(w.keywords, word)
	}
	return w, nil
}

// Write puts one message into the folder under a name made of unique, which must be the same for the same message: a
// message that is there already is replaced, so that an export that was broken off can begin again. At most 26
// keywords have letters in a folder; further ones are left out and counted.
func (w *MaildirWriter) Write(unique string, m Message, content io.Reader) (lost int, err error) {
	if unique == "" || strings.ContainsAny(unique, ":/\x00") || unique[0] == '.' {
		return 0, fmt.Errorf("write maildir: %q can't name a file", unique)
	}
	temp := filepath.Join(w.dir, "tmp", unique)
	if err := writeLF(temp, content); err != nil {
		return 0, fmt.Errorf("write maildir: %w", errors.Join(err, os.Remove(temp)))
	}
	if err := os.Chtimes(temp, m.Date, m.Date); err != nil {
		return 0, fmt.Errorf("write maildir: %w", err)
	}
	info, lost := w.info(m.Flags)
	name := unique + ":2," + info
	final := filepath.Join(w.dir, "cur", name)
	if err := os.Rename(temp, final); err != nil {
		return 0, fmt.Errorf("write maildir: %w", err)
	}
	if old, ok := w.names[unique]; ok && old != name {
		if err := os.Remove(filepath.Join(w.dir, "cur", old)); err != nil {
			return 0, fmt.Errorf("write maildir: %w", err)
		}
	}
	w.names[unique] = name
	w.unsynced = append(w.unsynced, final)
	return lost, nil
}

func writeLF(file string, content io.Reader) (err error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	out := bufio.NewWriterSize(f, 64<<10)
	lf := lfWriter{w: out, fresh: true}
	if _, err := io.CopyBuffer(lineSink{&lf}, struct{ io.Reader }{content}, make([]byte, 32<<10)); err != nil {
		return err
	}
	if err := lf.flush(); err != nil {
		return err
	}
	return out.Flush()
}

// lineSink makes a Writer of an lfWriter.
type lineSink struct{ l *lfWriter }

func (s lineSink) Write(p []byte) (int, error) { return len(p), s.l.write(p) }

// info writes the flags in the order of ASCII, as the format asks.
func (w *MaildirWriter) info(f Flags) (info string, lost int) {
	var out []byte
	for _, c := range []struct {
		set    bool
		letter byte
	}{{f.Draft, 'D'}, {f.Flagged, 'F'}, {f.Answered, 'R'}, {f.Seen, 'S'}, {f.Deleted, 'T'}} {
		if c.set {
			out = append(out, c.letter)
		}
	}
	var letters []byte
	for _, k := range f.Keywords {
		i := slices.Index(w.keywords, k)
		if i < 0 {
			if len(w.keywords) == 26 || !IsKeyword(k) {
				lost++
				continue
			}
			i = len(w.keywords)
			w.keywords = append(w.keywords, k)
			w.changed = true
		}
		letters = append(letters, byte('a'+i))
	}
	slices.Sort(letters)
	return string(append(out, letters...)), lost
}

// Sync puts what was written on stable storage: the messages, the keywords' file and the folder's names.
func (w *MaildirWriter) Sync() error {
	for _, file := range w.unsynced {
		if err := syncFile(file); err != nil {
			return fmt.Errorf("write maildir: %w", err)
		}
	}
	w.unsynced = w.unsynced[:0]
	if w.changed {
		var b strings.Builder
		for i, k := range w.keywords {
			b.WriteString(strconv.Itoa(i) + " " + k + "\n")
		}
		file := filepath.Join(w.dir, keywordFile)
		if err := os.WriteFile(file+".tmp", []byte(b.String()), 0o600); err != nil {
			return fmt.Errorf("write maildir: %w", err)
		}
		if err := os.Rename(file+".tmp", file); err != nil {
			return fmt.Errorf("write maildir: %w", err)
		}
		w.changed = false
	}
	for _, dir := range []string{filepath.Join(w.dir, "cur"), w.dir} {
		if err := syncFile(dir); err != nil {
			return fmt.Errorf("write maildir: %w", err)
		}
	}
	return nil
}

// syncFile syncs a file or a directory.
func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// UniqueName makes the name of a message's file: time of delivery first, then what tells it from all others.
func UniqueName(date time.Time, id string) string {
	return strconv.FormatInt(max(date.Unix(), 0), 10) + "." + id + ".waxwing"
}
