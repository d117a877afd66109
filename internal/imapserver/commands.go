package imapserver

import "context"

// states is a set of session states (RFC 3501, section 3).
type states uint8

const (
	notAuthenticated states = 1 << iota
	authenticated
	selected

	anyState = notAuthenticated | authenticated | selected
	loggedIn = authenticated | selected
)

// tidings says which changes of the selected mailbox may be told at the end of a command.
type tidings uint8

const (
	// tellAll tells everything, EXPUNGE included.
	tellAll tidings = iota
	// tellNoExpunge holds EXPUNGE back: while FETCH, STORE and SEARCH with sequence numbers are under way the numbers
	// must not move (RFC 3501, section 7.4.1).
	tellNoExpunge
	// tellNothing is for commands that report by themselves, or that have no mailbox.
	tellNothing
)

// request is one parsed command.
type request interface {
	// parse reads the arguments up to the end of the command, or up to where run goes on reading.
	parse(p *parser)
	// run does the work and writes untagged responses. The zero reply answers OK.
	run(ctx context.Context, s *session) (reply, error)
}

// command is a row of the command table.
type command struct {
	name       string
	states     states
	capability string // announced by CAPABILITY where the command is allowed, "" for the commands of RFC 3501
	rfc        string // where it is defined
	tell       tidings
	make       func() request
}

// commandTable holds every command; "UID X" are commands of their own. It is filled by init so that the handlers may
// refer to the table (CAPABILITY).
var commandTable map[string]*command

// knownWords holds the words of the protocol, so that reading one does not allocate.
var knownWords map[string]string

func init() {
	list := commandList()
	commandTable = make(map[string]*command, len(list))
	knownWords = map[string]string{"UID": "UID"}
	for i := range list {
		commandTable[list[i].name] = &list[i]
		knownWords[list[i].name] = list[i].name
	}
	for _, w := range []string{
		"FLAGS", "BODY", "BODY.PEEK", "ENVELOPE", "BODYSTRUCTURE", "INTERNALDATE", "RFC822.SIZE", "HEADER", "TEXT",
		"HEADER.FIELDS", "ALL", "NIL", "FROM", "SUBJECT", "SEEN", "UNSEEN", "NOT", "OR", "SINCE", "MODSEQ",
	} {
		knownWords[w] = w
	}
}

// commandList gives the table in the order of the documentation.
func commandList() []command {
	return []command{
		{"CAPABILITY", anyState, "", "RFC 3501, 6.1.1", tellAll, func() request { return new(capabilityRequest) }},
		{"NOOP", anyState, "", "RFC 3501, 6.1.2", tellAll, func() request { return new(noopRequest) }},
		{"LOGOUT", anyState, "", "RFC 3501, 6.1.3", tellNothing, func() request { return new(logoutRequest) }},
		{"ID", anyState, "ID", "RFC 2971", tellAll, func() request { return new(idRequest) }},

		{"STARTTLS", notAuthenticated, "", "RFC 3501, 6.2.1", tellNothing, func() request { return new(startTLSRequest) }},
		{"AUTHENTICATE", notAuthenticated, "", "RFC 3501, 6.2.2", tellNothing, func() request { return new(authenticateRequest) }},
		{"LOGIN", notAuthenticated, "", "RFC 3501, 6.2.3", tellNothing, func() request { return new(loginRequest) }},

		{"ENABLE", loggedIn, "ENABLE", "RFC 5161", tellAll, func() request { return new(enableRequest) }},
		{"SELECT", loggedIn, "", "RFC 3501, 6.3.1", tellNothing, func() request { return new(selectRequest) }},
		{"EXAMINE", loggedIn, "", "RFC 3501, 6.3.2", tellNothing, func() request { return &selectRequest{examine: true} }},
		{"CREATE", loggedIn, "", "RFC 3501, 6.3.3", tellAll, func() request { return new(createRequest) }},
		{"DELETE", loggedIn, "", "RFC 3501, 6.3.4", tellAll, func() request { return new(deleteRequest) }},
		{"RENAME", loggedIn, "", "RFC 3501, 6.3.5", tellAll, func() request { return new(renameRequest) }},
		{"SUBSCRIBE", loggedIn, "", "RFC 3501, 6.3.6", tellAll, func() request { return &subscribeRequest{on: true} }},
		{"UNSUBSCRIBE", loggedIn, "", "RFC 3501, 6.3.7", tellAll, func() request { return new(subscribeRequest) }},
		{"LIST", loggedIn, "", "RFC 3501, 6.3.8; RFC 5258", tellAll, func() request { return &listRequest{word: "LIST"} }},
		{"LSUB", loggedIn, "", "RFC 3501, 6.3.9", tellAll, func() request { return &listRequest{word: "LSUB"} }},
		{"XLIST", loggedIn, "", "LIST under the name that old clients know", tellAll, func() request { return &listRequest{word: "XLIST"} }},
		{"NAMESPACE", loggedIn, "NAMESPACE", "RFC 2342", tellAll, func() request { return new(namespaceRequest) }},
		{"STATUS", loggedIn, "", "RFC 3501, 6.3.10; RFC 8438", tellAll, func() request { return new(statusRequest) }},
		{"APPEND", loggedIn, "", "RFC 3501, 6.3.11", tellAll, func() request { return new(appendRequest) }},
		{"IDLE", loggedIn, "IDLE", "RFC 2177", tellAll, func() request { return new(idleRequest) }},

		{"CHECK", selected, "", "RFC 3501, 6.4.1", tellAll, func() request { return new(noopRequest) }},
		{"CLOSE", selected, "", "RFC 3501, 6.4.2", tellNothing, func() request { return &closeRequest{expunge: true} }},
		{"UNSELECT", selected, "UNSELECT", "RFC 3691", tellNothing, func() request { return new(closeRequest) }},
		{"EXPUNGE", selected, "", "RFC 3501, 6.4.3", tellAll, func() request { return new(expungeRequest) }},
		{"SEARCH", selected, "", "RFC 3501, 6.4.4; RFC 4731", tellNoExpunge, func() request { return new(searchRequest) }},
		{"FETCH", selected, "", "RFC 3501, 6.4.5", tellNoExpunge, func() request { return new(fetchRequest) }},
		{"STORE", selected, "", "RFC 3501, 6.4.6", tellNoExpunge, func() request { return new(storeRequest) }},
		{"COPY", selected, "", "RFC 3501, 6.4.7", tellAll, func() request { return new(copyRequest) }},
		{"MOVE", selected, "MOVE", "RFC 6851", tellAll, func() request { return &copyRequest{move: true} }},
		{"UID EXPUNGE", selected, "UIDPLUS", "RFC 4315, 2.1", tellAll, func() request { return &expungeRequest{uid: true} }},
		{"UID SEARCH", selected, "", "RFC 3501, 6.4.8", tellAll, func() request { return &searchRequest{uid: true} }},
		{"UID FETCH", selected, "", "RFC 3501, 6.4.8", tellAll, func() request { return &fetchRequest{uid: true} }},
		{"UID STORE", selected, "", "RFC 3501, 6.4.8", tellAll, func() request { return &storeRequest{uid: true} }},
		{"UID COPY", selected, "", "RFC 3501, 6.4.8", tellAll, func() request { return &copyRequest{uid: true} }},
		{"UID MOVE", selected, "", "RFC 6851", tellAll, func() request { return &copyRequest{uid: true, move: true} }},
	}
}

// CommandDoc describes one command for the reference documentation.
type CommandDoc struct {
	Name       string
	States     []string // of "not authenticated", "authenticated", "selected"
	Capability string
	RFC        string
}

// CommandDocs lists the commands served, in the order of the documentation.
func CommandDocs() []CommandDoc {
	list := commandList()
	docs := make([]CommandDoc, 0, len(list))
	for _, c := range list {
		d := CommandDoc{Name: c.name, Capability: c.capability, RFC: c.rfc}
		for _, st := range stateNames {
			if c.states&st.state != 0 {
				d.States = append(d.States, st.name)
			}
		}
		docs = append(docs, d)
	}
	return docs
}

var stateNames = []struct {
	state states
	name  string
}{
	{notAuthenticated, "not authenticated"},
	{authenticated, "authenticated"},
	{selected, "selected"},
}
