package domain

// The rules that a history must keep. Each is the Rule of a RuleError.
const (
	ruleCreation   = "a stream begins with the creation, and has one only"
	ruleKind       = "an event belongs to its kind"
	ruleTime       = "time does not run backwards"
	ruleDeleted    = "nothing follows the deletion"
	ruleTransition = "the status moves forward, one step at a time"
	ruleDue        = "no step is taken before its time"
	ruleUpdate     = "an update continues the present values"
	ruleFrozen     = "what is frozen does not change"
	ruleDelete     = "what is active is not deleted"
	ruleCommitment = "the revealed secret is the one that was committed to"
	ruleEntries    = "the frozen list holds who entered"
	ruleKeys       = "a key is made once and ends once"
	ruleLine       = "a consumer's standing changes as the queue's rules say"
	ruleTurn       = "nobody is admitted before who entered earlier and still waits"
	rulePace       = "automatic admission keeps to the rate"
	ruleCapacity   = "no more wait than the capacity in force"
	ruleSession    = "a session lasts as long as was said, and is over then"
	ruleUnfinished = "a queue is completed when nobody admitted is unfinished"
	ruleEntropy    = "entropy comes once, while CLOSED, to who named a source"
)
