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
        val metadata = Metadata.parse(INDEX) { if (it.file == "pets.tflite") PETS else error(it.file) }
        assertEquals(listOf("cat", "dog"), metadata.labels)
        assertEquals(InputSpec(32, 24, 3, 36, listOf(1.5f, 2f, 3f), listOf(4f, 5f, 6f)), metadata.input)
        assertEquals(ModelEntry("pets", "pets.tflite", 28772, 0.975), metadata.models.single())
    }

    @ParameterizedTest
    @CsvSource(
        delimiter = '|',
        quoteCharacter = '`',
        value = [
            "\"format\": 2        | \"format\": 3         | has format 3",
            "\"models\"           | \"files\"             | cannot be read",
            "\"shorter_side\": 36 | \"shorter_side\": 30  | does not fit",
            "[{                    | [], \"left\": [{       | names no models",
            "}                     | ]                       | cannot be read",
        ],
    )
    fun `an index that cannot be used says why`(old: String, new: String, reason: String) =
        assertRefused(reason) { Metadata.parse(INDEX.replace(old, new)) { PETS } }

    @Test
    fun `a file that does not fit the app says why`() {
        assertRefused("pets.tflite names no labels") { Metadata.parse(INDEX) { PETS.copy(labels = emptyList()) } }
        assertRefused("mean and std") { Metadata.parse(INDEX) { PETS.copy(std = listOf(4f, 0f, 6f)) } }
        assertRefused("mean and std") { Metadata.parse(INDEX) { PETS.copy(mean = listOf(1.5f, 2f)) } }
        assertRefused("does not fit") { Metadata.parse(INDEX) { PETS.copy(height = 0) } }
    }

    private fun assertRefused(reason: String, parse: () -> Metadata) {
        val error = assertThrows(IllegalArgumentException::class.java) { parse() }
        assertTrue(reason in error.message!!) { error.message }
    }

    private companion object {
        val PETS = FileDescription(listOf("cat", "dog"), 32, 24, 3, listOf(1.5f, 2f, 3f), listOf(4f, 5f, 6f))
        const val INDEX = """{
            "format": 2, "shorter_side": 36,
            "models": [{"name": "pets", "file": "pets.tflite", "sha256": "00", "size_bytes": 28772,
                        "binary_share": 0.975}]
        }"""
    }
}
