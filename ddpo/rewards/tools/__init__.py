"""Tools around rewards: availability, benchmark, doctor, pages of the cards."""
