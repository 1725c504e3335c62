package domain

// The rules that a history must keep. Each is the Rule of a RuleError.
const (
	ruleCreation   = "a stream begins with its creation, and has no other creation"
	ruleKind       = "an event belongs to its kind"
	ruleTime       = "time does not run backwards"
	ruleDeleted    = "nothing follows the deletion"
	ruleTransition = "the status moves forward, one step at a time"
	ruleDue        = "no step is taken before its time"
	ruleUpdate     = "the old values of an update are the present values"
	ruleFrozen     = "a frozen field does not change"
	ruleDelete     = "an active distribution is not deleted"
	ruleCommitment = "the revealed secret matches its commitment"
	ruleEntries    = "the frozen list holds every entry"
	ruleKeys       = "a key is made once and ends once"
	ruleLine       = "a consumer's standing changes as the queue's rules say"
	ruleTurn       = "nobody is admitted before a consumer who entered earlier and still waits"
	rulePace       = "automatic admission keeps to the rate"
	ruleCapacity   = "no more consumers wait than the capacity in force"
	ruleSession    = "a session ends at the time that its admission set"
	ruleUnfinished = "a queue is completed when nobody admitted is unfinished"
	ruleEntropy    = "entropy is supplied once, while CLOSED, to a draw that names a source"
)
