package org.kbnn.demo

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.params.ParameterizedTest
import org.junit.jupiter.params.provider.CsvSource

class MetadataTest {
    @Test
    fun `an index as export-android writes it`() {
        val metadata = Metadata.parse(INDEX)
        assertEquals(listOf("cat", "dog"), metadata.labels)
        assertEquals(InputSpec(32, 24, 3, 36, listOf(1.5f, 2f, 3f), listOf(4f, 5f, 6f)), metadata.input)
        assertEquals(ModelEntry("pets", "pets.tflite", 28772, 0.975), metadata.models.single())
    }

    @ParameterizedTest
    @CsvSource(
        delimiter = '|',
        quoteCharacter = '`',
        value = [
            "\"format\": 1       | \"format\": 2            | has format 2",
            "\"labels\"          | \"names\"                | cannot be read",
            "[\"cat\", \"dog\"]  | []                       | names no labels",
            "\"channels\": 3     | \"channels\": 4          | 4 channels",
            "[4.0, 5.0, 6.0]     | [4.0, 0.0, 6.0]          | mean and std",
            "[1.5, 2.0, 3.0]     | [1.5, 2.0]               | mean and std",
            "\"shorter_side\": 36 | \"shorter_side\": 30    | does not fit",
            "\"height\": 32      | \"height\": 0            | does not fit",
            "}                   | ]                        | cannot be read",
        ],
    )
    fun `an index that cannot be used says why`(old: String, new: String, reason: String) {
        val error = assertThrows(IllegalArgumentException::class.java) { Metadata.parse(INDEX.replace(old, new)) }
        assertTrue(reason in error.message!!) { error.message }
    }

    private companion object {
        const val INDEX = """{
            "format": 1, "labels": ["cat", "dog"],
            "input": {"height": 32, "width": 24, "channels": 3, "shorter_side": 36,
                      "mean": [1.5, 2.0, 3.0], "std": [4.0, 5.0, 6.0]},
            "models": [{"name": "pets", "file": "pets.tflite", "sha256": "00", "size_bytes": 28772,
                        "binary_share": 0.975}]
        }"""
    }
}
