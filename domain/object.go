package domain

// leadingFields come before the fields that only one kind has, trailingFields after
// them.
func (l *Lifecycle) leadingFields() []field {
	return []field{
		{"id", readOnly(func(dst []byte) []byte { return appendString(dst, string(l.ID)) }), computed},
		{"type", readOnly(func(dst []byte) []byte { return appendString(dst, string(l.ID.Kind())) }), computed},
		{"organizationId", readOnly(func(dst []byte) []byte { return appendString(dst, string(l.OrganizationID)) }), computed},
		{"sequenceId", token{&l.SequenceID}, required | creationOnly},
		{"name", text{&l.Name, 0, 200}, nullable},
		{"timeZone", zone{&l.TimeZone}, 0},
		{"status", readOnly(func(dst []byte) []byte { return appendString(dst, string(l.Status)) }), computed},
		{"openAt", instant{&l.OpenAt, &l.TimeZone}, nullable | untilOpen | timing},
		{"closeAt", instant{&l.CloseAt, &l.TimeZone}, nullable | timing},
		{"encryptionSeed", secret{&l.EncryptionSeed}, creationOnly},
		{"metadata", object{&l.Metadata, 16 << 10}, nullable},
	}
}

func (l *Lifecycle) trailingFields() []field {
	return []field{
		{"createdAt", readOnly(l.CreatedAt.appendJSON), computed},
		{"updatedAt", readOnly(l.UpdatedAt.appendJSON), computed},
	}
}

func (l *Lifecycle) allFields(own ...field) []field {
	return append(append(l.leadingFields(), own...), l.trailingFields()...)
}

// publicFields returns the fields that everybody may see: the shared ones, then the
// kind's own. self is the distribution that embeds l.
func (l *Lifecycle) publicFields(self Distribution, own ...field) []field {
	return append([]field{
		{"id", readOnly(func(dst []byte) []byte { return appendString(dst, string(l.ID)) }), computed},
		{"name", text{&l.Name, 0, 200}, 0},
		{"sequenceId", token{&l.SequenceID}, 0},
		{"openAt", instant{&l.OpenAt, &l.TimeZone}, 0},
		{"closeAt", instant{&l.CloseAt, &l.TimeZone}, 0},
		{"timeZone", zone{&l.TimeZone}, 0},
		{"status", readOnly(func(dst []byte) []byte { return appendString(dst, string(self.publicStatus())) }), computed},
	}, own...)
}

func appendFields(dst []byte, fields []field) []byte {
	for i, f := range fields {
		sep := byte(',')
		if i == 0 {
			sep = '{'
		}
		dst = append(dst, sep, '"')
		dst = append(dst, f.name...)
		dst = append(dst, '"', ':')
		dst = f.value.appendJSON(dst)
	}
	return append(dst, '}')
}
